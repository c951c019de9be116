"""How fast ragbot answers, one reader and many, and its peers: `python -m scripts.bench`.

Parts are measured one after another, each a file of its own that yields samples and, from
samples alone, makes tables; `results` keeps both in one JSON file, `page` renders that. What
answers runs in processes of its own (`answerer/`), which all speak one protocol.
"""
