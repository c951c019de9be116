// The conversation on show: its turns, and the one answer that is under way in this tab.

const SILENCE = 25000; // milliseconds without a sign of life, after which the server counts as gone
const UNHEARD = 15000; // the same, for the first one
const SHOWN_STARTS = 4;
const REMEMBERED = 6; // turns that a follow-up is seen in the light of

let talk = newTalk();
let running = null; // {turn, talk, since, heard, stage, passages, nearest}
let openings = []; // example questions

function ask(question, again) {
  question = question.trim();
  if (running || !question) return;
  const turn = again || { id: "", question: plain(question), scope: scope(), state: "asking" };
  Object.assign(turn, { id: token(), state: "asking", error: null, said: "", answer: null });
  turn.documents = chosen[turn.scope]; // asked again, it is asked as one has chosen by then
  if (!again) talk.turns.push(turn);
  talk.title = talk.title || turn.question;
  talk.when = Date.now();
  running = { turn, talk, since: Date.now(), heard: Date.now(), stage: "sending", passages: "", language };
  saveTalk(talk);
  drawTurns();
  drawTalks();
  drawBusy();
  toTurn(turn);
  const before = talk.turns.slice(0, talk.turns.indexOf(turn)).filter((one) => one.answer);
  trigger("ask", {
    visitor, language, turn: turn.id, question: turn.question, scope: turn.scope,
    history: before.slice(-REMEMBERED).map((one) => [one.question, one.answer.answer]),
    asked: talk.turns.map((one) => one.question), documents: turn.documents,
  });
}

// What the server tells of the answer under way; each message holds all there is to show.
function heard(update) {
  if (!running || !update || update.turn !== running.turn.id) return;
  const { turn } = running;
  running.heard = Date.now();
  if (update.stage !== running.stage && WORDS[update.stage] && update.stage !== "stopped") {
    announce(say(update.stage, update.position));
  }
  const { stage, position, passages, nearest } = update;
  Object.assign(running, { stage, position, passages, nearest });
  turn.said = update.said || "";
  turn.shown = { html: update.html || "" };
  if (update.stage === "done") {
    Object.assign(turn, { answer: update.answer, next: update.next || [] });
    turn.shown = { html: update.html, plain: update.plain };
    const switched = running.language !== language;
    finish("done");
    if (switched) fill(true).then(drawTurns);
    announce(say("answer_ready") + " " + turn.answer.answer);
  } else if (update.stage === "failed") {
    turn.error = update.error;
    finish("failed");
    announce(wrong(update.error));
  } else if (update.stage === "stopped") {
    finish("stopped");
  } else drawTurn(turn);
}

function finish(state) {
  const { turn, talk: of } = running;
  turn.state = state;
  running = null;
  saveTalk(of);
  drawTurns();
  drawBusy();
}

function stop() {
  if (!running) return;
  const { id } = running.turn;
  finish("stopped"); // at once, whatever becomes of the request
  announce(say("stopped"));
  call({ do: "stop", turn: id });
}

function tick() {
  if (!running) return;
  const seconds = Math.floor((Date.now() - running.since) / 1000);
  const elapsed = $(`[id="${running.turn.id}"] .elapsed`);
  if (elapsed) elapsed.textContent = say("seconds", seconds);
  if (Date.now() - running.heard > (running.stage === "sending" ? UNHEARD : SILENCE)) {
    const { turn } = running;
    turn.error = { code: "lost" };
    call({ do: "stop", turn: turn.id });
    finish("failed");
    announce(wrong(turn.error));
  }
}

// --- drawing -----------------------------------------------------------------------------------

function drawTurns() {
  const turns = $("#turns");
  const ids = new Set(talk.turns.map((turn) => turn.id));
  for (const one of [...turns.children]) if (!ids.has(one.id)) one.remove();
  talk.turns.forEach((turn, at) => {
    const view = turnView(turn); // one that is asked again stays in its place
    if (turns.children[at] !== view) turns.insertBefore(view, turns.children[at]);
    drawTurn(turn);
  });
  $("#welcome").hidden = talk.turns.length > 0;
  $("#title").textContent = talk.title || "ragbot";
  $("#download").hidden = !talk.turns.some((turn) => turn.answer);
  document.title = talk.title ? `${talk.title} · ragbot` : `ragbot · ${say("tagline")}`;
}

function turnView(turn) {
  let view = document.getElementById(turn.id);
  if (!view) {
    view = $("#turn").content.firstElementChild.cloneNode(true);
    view.id = turn.id;
    $("#turns").append(view);
  }
  return view;
}

function drawTurn(turn) {
  if (!talk.turns.includes(turn)) return; // another conversation is on show
  const view = turnView(turn), busy = running?.turn === turn;
  view.dataset.state = turn.state;
  const asked = $(".asked", view);
  asked.textContent = plain(turn.question);
  asked.lang = turn.answer?.language || asked.lang || language;
  $(".only", view).hidden = !turn.documents?.length;
  $(".only", view).textContent = say("only", (turn.documents || []).map(plain).join(", "));
  drawProgress(view, busy);
  const html = turn.shown?.html || "";
  const answer = $(".answer", view);
  if (answer.drawn !== html) {
    answer.innerHTML = html; // escaped by ragbot/web/render.py
    answer.drawn = html;
  }
  const note = $(".note", view);
  note.hidden = turn.state !== "stopped";
  note.textContent = say(turn.said ? "stopped" : "stopped_empty");
  const failed = $(".failed", view);
  failed.hidden = turn.state !== "failed";
  if (turn.error) $("p", failed).textContent = wrong(turn.error);
  const retry = $("[data-turn=retry]", view);
  retry.textContent = say("retry");
  if (turn.state === "stopped") note.append(" ", retryButton());
  drawActions(turn, view);
  drawNext(turn, view);
}

function retryButton() {
  return node("button", { type: "button", className: "link", textContent: say("retry"), "data-turn": "retry" });
}

function drawProgress(view, busy) {
  const progress = $(".progress", view);
  const nearest = $(".nearest", progress);
  progress.hidden = !busy;
  if (!busy) return nearest.replaceChildren();
  $(".what", progress).textContent = say(running.stage, running.position);
  $(".passages", progress).innerHTML = running.passages || ""; // escaped, as above
  if (nearest.shown !== running.nearest) nearest.innerHTML = running.nearest || ""; // it may have the focus
  nearest.shown = running.nearest;
  tick();
}

function drawActions(turn, view) {
  const actions = $(".actions", view);
  actions.hidden = !turn.answer || turn.state !== "done";
  if (actions.hidden) return;
  $("[data-turn=copy] span", view).textContent = say("copy");
  for (const [name, key] of [["up", "good"], ["down", "bad"]]) {
    const button = $(`[data-turn=${name}]`, view);
    button.setAttribute("aria-label", say(key));
    button.title = say(key);
    button.setAttribute("aria-pressed", String(turn.verdict === name));
  }
  const figures = $(".answer .figures", view);
  if (figures) $(".figures-here", view).replaceChildren(figures);
  $(".remark input", view).placeholder = say("remark");
  $(".remark input", view).setAttribute("aria-label", say("remark"));
  $(".remark button", view).textContent = say("send_remark");
}

function drawNext(turn, view) {
  const next = $(".next", view);
  const last = talk.turns.at(-1) === turn;
  next.hidden = !last || turn.state !== "done" || !turn.next?.length;
  $("h3", next).textContent = say("next");
  $("ul", next).replaceChildren(...(turn.next || []).map((question) => offer(question)));
}

function offer(question) {
  const button = node("button", { type: "button", className: "offer", dir: "auto" }, question);
  button.append(icon("next"));
  button.onclick = () => ask(question);
  return node("li", {}, button);
}

function fittingStarts() {
  const asked = (one) => !chosen.site.length || chosen.site.includes(one.doc);
  return openings.filter((one) => one.language === language && asked(one)).slice(0, SHOWN_STARTS);
}

function drawStarts() {
  const fitting = fittingStarts();
  $("#starts").hidden = !fitting.length;
  $("#starts ul").replaceChildren(...fitting.map((one) => offer(one.question)));
}

function drawBusy() {
  $("#send").hidden = Boolean(running);
  $("#stop").hidden = !running;
  $("#composer").dataset.busy = String(Boolean(running));
}

function toTurn(turn) {
  const view = document.getElementById(turn.id), scroll = $("#scroll");
  if (!view) return;
  const top = view.getBoundingClientRect().top - scroll.getBoundingClientRect().top;
  scroll.scrollTo({ top: scroll.scrollTop + top, behavior: calm.matches ? "auto" : "smooth" });
}

// --- from the browser's store ------------------------------------------------------------------

// Render what has been answered, in the page's language.
async function fill(whole) {
  const mine = talk.turns.filter((turn) => turn !== running?.turn && (turn.answer || turn.said));
  const wanted = mine.filter((turn) => whole || !turn.shown);
  if (!wanted.length) return true;
  const turns = wanted.map(({ scope, answer, said }) => ({ scope, answer, said: said || "" }));
  const reply = await call({ do: "show", turns });
  if (reply.error) {
    toast(wrong(reply.error), say("retry"), () => fill(whole).then(drawTurns));
    return false;
  }
  wanted.forEach((turn, at) => (turn.shown = reply.shown[at]));
  return true;
}

async function showTalk(chosen) {
  talk = running && running.talk.id === chosen.id ? running.talk : chosen;
  for (const turn of talk.turns) {
    if (turn.state === "asking" && turn !== running?.turn) turn.state = "stopped"; // a reload
  }
  tabKeep("talk", talk.id);
  $("#turns").replaceChildren();
  drawTurns();
  drawTalks();
  await fill(false);
  drawTurns();
  $("#scroll").scrollTop = 0;
  if (talk.turns.length) toTurn(talk.turns.at(-1));
}
