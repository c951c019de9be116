// Conversations in the browser: each under a key of its own, so that two tabs do not overwrite
// one another's. At most 30; where the browser's storage is full, the oldest go first.

const MOST = 30;
const TALK = "ragbot:talk:";
const memory = new Map(); // where the browser stores nothing
let unsaved = false;

function talks() {
  const found = new Map(memory);
  try {
    for (const key of Object.keys(localStorage)) {
      if (!key.startsWith(TALK)) continue;
      const read = readTalk(localStorage.getItem(key));
      if (read) found.set(read.id, read);
    }
  } catch {
    // forbidden: what is in memory is all there is
  }
  return [...found.values()].sort((one, other) => other.when - one.when);
}

function readTalk(text) {
  try {
    const talk = JSON.parse(text);
    return talk && typeof talk.id === "string" && Array.isArray(talk.turns) ? talk : null;
  } catch {
    return null;
  }
}

function loadTalk(id) {
  return talks().find((talk) => talk.id === id) || null;
}

function saveTalk(talk) {
  if (!talk.turns.length) return;
  for (const old of talks().filter((one) => one.id !== talk.id).slice(MOST - 1)) dropTalk(old.id);
  const turns = talk.turns.map(({ shown, ...rest }) => rest); // rendered again when needed
  const text = JSON.stringify({ ...talk, turns });
  for (;;) {
    try {
      localStorage.setItem(TALK + talk.id, text);
      memory.delete(talk.id);
      return;
    } catch {
      const oldest = talks().filter((one) => one.id !== talk.id && !memory.has(one.id)).pop();
      if (!oldest) break;
      dropTalk(oldest.id);
      toast(say("error_storage"));
    }
  }
  memory.set(talk.id, JSON.parse(text));
  if (!unsaved) toast(say("error_unsaved"));
  unsaved = true;
}

function dropTalk(id) {
  memory.delete(id);
  try {
    localStorage.removeItem(TALK + id);
  } catch {
    // as above
  }
}

// What belongs to this tab alone, and outlives a reload.
function tabKept(name) {
  try {
    return JSON.parse(sessionStorage.getItem("ragbot:" + name));
  } catch {
    return null;
  }
}

function tabKeep(name, value) {
  try {
    sessionStorage.setItem("ragbot:" + name, JSON.stringify(value));
  } catch {
    // as above
  }
}

function newTalk() {
  return { id: token(), title: "", when: Date.now(), turns: [] };
}
