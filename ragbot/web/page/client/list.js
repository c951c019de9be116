// The list of conversations and the drawers: what is open, what can be reached, what is saved.

function drawTalks() {
  const rows = talks();
  $("#no-talks").hidden = rows.length > 0;
  $("#talks").replaceChildren(...rows.map(talkRow));
}

function talkRow({ id, title }) {
  const name = plain(title) || say("untitled");
  const open = node("button", { type: "button", className: "talk", title: name, dir: "auto" }, name);
  if (id === talk.id) open.setAttribute("aria-current", "true");
  open.onclick = () => chooseTalk(id);
  const drop = node("button", { type: "button", className: "icon", title: say("delete", name) }, icon("bin"));
  drop.setAttribute("aria-label", say("delete", name));
  drop.onclick = () => removeTalk(id);
  return node("li", {}, open, drop);
}

function chooseTalk(id) {
  const chosen = loadTalk(id);
  if (chosen) showTalk(chosen);
  if (middling.matches) closeList();
  closePaneQuietly();
}

function startTalk() {
  if (talk.turns.length) showTalk(newTalk());
  else drawTurns();
  if (middling.matches) closeList(false);
  closePaneQuietly();
  box.focus();
}

function closePaneQuietly() {
  opener = null;
  if (root.dataset.pane === "open") closePane();
}

function removeTalk(id) {
  const removed = loadTalk(id);
  if (running?.talk.id === id) stop();
  dropTalk(id);
  if (talk.id === id) showTalk(newTalk());
  drawTalks();
  $("[data-do=new]").focus();
  toast(say("deleted"), say("undo"), () => {
    saveTalk(removed);
    drawTalks();
    chooseTalk(id);
  });
}

async function saveAs(form) {
  const turns = talk.turns.filter((turn) => turn.answer);
  const packed = turns.map(({ scope, answer }) => ({ scope, answer, said: "" }));
  const reply = await call({ do: "save", form, turns: packed });
  $("#download").open = false;
  if (reply.error) return toast(wrong(reply.error), say("retry"), () => saveAs(form));
  const kind = form === "json" ? "application/json" : "text/markdown";
  const link = node("a", { href: URL.createObjectURL(new Blob([reply.text], { type: kind })) });
  link.download = form === "json" ? "ragbot.json" : "ragbot.md";
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10000);
}

// --- drawers -----------------------------------------------------------------------------------

function openList() {
  root.dataset.list = "open";
  keepList();
  settle();
  $("#close-list").focus();
}

function closeList(back = true) {
  root.dataset.list = "closed";
  keepList();
  settle();
  if (back) $("#open-list").focus();
}

function keepList() {
  if (!middling.matches) keep("list", root.dataset.list);
}

// What lies behind a drawer can be neither reached nor read out.
function settle() {
  const list = root.dataset.list === "open", pane = root.dataset.pane === "open";
  const listDrawer = list && middling.matches, paneDrawer = pane && narrow.matches;
  $("#list").inert = !list || (paneDrawer && !listDrawer);
  $("#pane").inert = !pane || listDrawer;
  $("#chat").inert = listDrawer || paneDrawer;
  $("#veil").hidden = !(listDrawer || paneDrawer);
  $("#open-list").hidden = list && !middling.matches;
  $("#open-list").setAttribute("aria-expanded", String(list));
}

$("#open-list").addEventListener("click", openList);
$("#close-list").addEventListener("click", () => closeList());
$("#veil").addEventListener("click", () => {
  if (root.dataset.list === "open" && middling.matches) closeList();
  else closePane();
});
for (const button of all("[data-do=new]")) button.addEventListener("click", startTalk);
for (const button of all("[data-save]")) {
  button.addEventListener("click", () => saveAs(button.dataset.save));
}
for (const media of [narrow, middling]) {
  media.addEventListener("change", () => {
    root.dataset.list = middling.matches ? "closed" : kept("list", "open");
    settle();
  });
}
document.addEventListener("click", (event) => {
  if (!event.target.closest?.("#download")) $("#download").open = false;
});
document.addEventListener("keydown", (event) => {
  if (event.key !== "Escape" || event.isComposing || $("dialog[open]")) return;
  if (!tip.hidden) hideTip();
  else if ($("#download").open) {
    $("#download").open = false;
    $("#download summary").focus();
  } else if (root.dataset.list === "open" && middling.matches) closeList();
  else if (root.dataset.pane === "open") closePane();
});
window.addEventListener("storage", (event) => {
  if (event.key?.startsWith(TALK)) drawTalks();
});
