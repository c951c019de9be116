// The reading pane: the document with the quoted sentence in its place; and the quote on hovering.

let spot = null; // what the pane shows: {scope, doc, start, end, quote, paragraph}
let shownPart = null; // {start, end, length}
let opener = null;

function spotOf(target) {
  const at = target.closest("[data-doc]");
  if (!at) return null;
  const [turn] = turnOf(at);
  const { doc, start, end, quote, paragraph } = at.dataset;
  return { scope: turn?.scope || "site", doc, start: Number(start), end: Number(end), quote, paragraph };
}

async function openSpot(wanted, from) {
  spot = wanted;
  opener = from;
  tabKeep("spot", spot);
  for (const one of all(".marker.current, .source.current")) one.classList.remove("current");
  from?.closest("[data-doc]")?.classList.add("current");
  openPane();
  const reply = await call({ do: "open", ...place(spot), part: "around" });
  if (spot !== wanted) return; // another one was pressed meanwhile
  if (reply.error) return showWrong(reply.error);
  showPart(reply);
  $("#document").innerHTML = reply.html; // escaped by ragbot/web/reading.py
  const mark = $("#document mark");
  $("#pane-body").scrollTop = 0;
  mark?.scrollIntoView({ block: "center" }); // at once: through a long document one would be sick
}

function place({ scope, doc, start, end, quote }) {
  return { scope, doc, start, end, quote };
}

function showWrong(error) {
  const retry = node("button", { type: "button", className: "button", textContent: say("retry") });
  retry.onclick = () => openSpot(spot, opener);
  const said = node("p", { textContent: wrong(error) });
  $("#document").replaceChildren(node("div", { className: "lost" }, said, retry));
}

function showPart(reply) {
  shownPart = { start: reply.start, end: reply.end, length: reply.length };
  const title = plain(reply.title), name = plain(spot.doc);
  $("#pane-title").textContent = title;
  $("#pane-title").lang = $("#document").lang = reply.language;
  $("#pane-name").textContent = name === title ? "" : name;
  $("#pane-mine").hidden = spot.scope !== "mine";
  drawParts();
}

function drawParts() {
  $("#earlier").hidden = shownPart.start <= 0;
  $("#later").hidden = shownPart.end >= shownPart.length;
}

async function more(part) {
  const wanted = spot, body = $("#pane-body");
  const start = part === "before" ? shownPart.start : shownPart.end;
  const reply = await call({ do: "open", ...place(spot), start, part });
  if (spot !== wanted) return;
  if (reply.error) return toast(wrong(reply.error), say("retry"), () => more(part));
  const height = body.scrollHeight;
  $("#document").insertAdjacentHTML(part === "before" ? "afterbegin" : "beforeend", reply.html);
  if (part === "before") {
    shownPart.start = reply.start;
    body.scrollTop += body.scrollHeight - height; // what is being read stays where it is
  } else shownPart.end = reply.end;
  drawParts();
}

function openPane() {
  const before = root.dataset.pane;
  root.dataset.pane = "open";
  if (before !== "open") {
    $("#document").replaceChildren();
    $("#pane-title").textContent = "";
    $("#pane-name").textContent = "";
    if (narrow.matches) closeList(false);
  }
  settle();
  $("#pane").focus({ preventScroll: true });
}

function closePane() {
  if (root.dataset.pane !== "open") return;
  root.dataset.pane = "closed";
  spot = null;
  tabKeep("spot", null);
  for (const one of all(".marker.current, .source.current")) one.classList.remove("current");
  settle();
  if (opener?.isConnected) opener.focus();
  else box.focus();
  opener = null;
}

$("#close-pane").addEventListener("click", closePane);
$("#earlier").addEventListener("click", () => more("before"));
$("#later").addEventListener("click", () => more("after"));
$("#turns").addEventListener("click", (event) => {
  const button = event.target.closest(".marker, .open, .source");
  if (!button || window.getSelection().toString()) return;
  hideTip();
  const from = button.matches("button") ? button : $(".open", button);
  openSpot(spotOf(button), from);
});

// --- the quote on hovering ---------------------------------------------------------------------

const tip = $("#tip");
let tipTimer = 0;
let tipFor = null;

function showTip(marker) {
  const { doc, paragraph, quote, lang } = marker.dataset;
  $("#tip-where").textContent = `${plain(doc)} · ${say("paragraph", paragraph)}`;
  $("#tip-quote").textContent = plain(quote);
  $("#tip-quote").lang = lang;
  tipFor = marker;
  tip.hidden = false;
  marker.setAttribute("aria-describedby", "tip-quote");
  const at = marker.getBoundingClientRect();
  const width = tip.offsetWidth, height = tip.offsetHeight;
  const left = Math.max(12, Math.min(at.left + at.width / 2 - width / 2, window.innerWidth - width - 12));
  const above = at.top - height - 8;
  tip.style.left = left + "px";
  tip.style.top = (above > 8 ? above : at.bottom + 8) + "px";
}

function hideTip() {
  clearTimeout(tipTimer);
  tip.hidden = true;
  tipFor?.removeAttribute("aria-describedby");
  tipFor = null;
}

function tipSoon(action, delay) {
  clearTimeout(tipTimer);
  tipTimer = setTimeout(action, delay);
}

$("#turns").addEventListener("pointerover", (event) => {
  const marker = event.target.closest(".marker");
  if (marker && event.pointerType === "mouse") tipSoon(() => showTip(marker), 120);
});
$("#turns").addEventListener("pointerout", (event) => {
  if (event.target.closest(".marker")) tipSoon(hideTip, 200);
});
tip.addEventListener("pointerenter", () => clearTimeout(tipTimer)); // it can be read and selected
tip.addEventListener("pointerleave", () => tipSoon(hideTip, 200));
$("#turns").addEventListener("focusin", (event) => {
  if (event.target.matches(".marker:focus-visible")) showTip(event.target);
});
$("#turns").addEventListener("focusout", hideTip);
$("#scroll").addEventListener("scroll", hideTip, { passive: true });
