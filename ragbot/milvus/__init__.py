"""An index on Milvus.

`client` speaks to the server, `facts` keeps texts by their names, `rows` says what a chunk's row
is, `generation` and `content` what is read, `index` searches, `build` fills a new generation and
switches the alias to it.
"""
