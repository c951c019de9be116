// Where a question is written, and what is done with an answer: copying, rating, asking again.

const box = $("#question");
let composing = false;

function scope() {
  return !$("#scope").hidden && $("#scope input[value=mine]").checked ? "mine" : "site";
}

function fit() {
  box.style.height = "auto";
  box.style.height = Math.min(box.scrollHeight, 200) + "px";
}

function submit() {
  const question = box.value.trim();
  if (running || !question) return;
  if (question.length > LONGEST) {
    $("#wrong").textContent = say("error_long", number(LONGEST));
    return;
  }
  $("#wrong").textContent = "";
  box.value = "";
  fit();
  ask(question);
}

box.addEventListener("compositionstart", () => (composing = true));
box.addEventListener("compositionend", () => (composing = false));
box.addEventListener("input", () => {
  $("#wrong").textContent = "";
  fit();
});
box.addEventListener("keydown", (event) => {
  // An input method's Enter chooses a word. Safari ends the composition first, and says 229.
  if (event.key !== "Enter" || event.shiftKey) return;
  if (event.isComposing || composing || event.keyCode === 229) return;
  event.preventDefault();
  submit();
});
$("#composer").addEventListener("submit", (event) => {
  event.preventDefault();
  submit();
});
$("#stop").addEventListener("click", () => {
  stop();
  box.focus();
});

// --- what is done with an answer ---------------------------------------------------------------

function turnOf(target) {
  const view = target.closest(".turn");
  return [talk.turns.find((turn) => turn.id === view?.id), view];
}

async function copy(text) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    return copyOldWay(text); // pages without a certificate have no clipboard
  }
}

function copyOldWay(text) {
  const area = node("textarea", { value: text, className: "unseen" });
  root.append(area);
  area.select();
  const done = document.execCommand("copy");
  area.remove();
  return done;
}

async function copyAnswer(turn, button) {
  const done = await copy(turn.shown?.plain || turn.answer.answer);
  const label = $("span", button);
  label.textContent = say(done ? "copied" : "copy");
  if (!done) return toast(say("copy_failed"));
  announce(say("copied"));
  setTimeout(() => (label.textContent = say("copy")), 2000);
  button.focus();
}

// Pressed again, a thumb is taken back.
async function rate(turn, pressed, remark) {
  const verdict = pressed === turn.verdict && !remark ? null : pressed;
  const before = talk.turns.slice(0, talk.turns.indexOf(turn)).filter((one) => one.answer);
  const reply = await call({
    do: "rate", turn: turn.id, scope: turn.scope, answer: turn.answer, verdict, remark,
    history: before.slice(-REMEMBERED).map((one) => [one.question, one.answer.answer]),
  });
  if (reply.error) return toast(wrong(reply.error), say("retry"), () => rate(turn, pressed, remark));
  turn.verdict = verdict;
  saveTalk(talk);
  drawTurn(turn);
  const view = document.getElementById(turn.id), form = $(".remark", view);
  form.hidden = Boolean(remark) || !verdict;
  if (verdict) toast(say("thanks"));
  if (!remark && verdict) return $("input", form).focus();
  $("input", form).value = "";
  $(`[data-turn=${pressed}]`, view).focus();
}

$("#turns").addEventListener("click", (event) => {
  const button = event.target.closest("[data-turn]");
  if (!button) return;
  const [turn] = turnOf(button);
  const what = button.dataset.turn;
  if (what === "retry" && !running) {
    ask(turn.question, turn);
    box.focus();
  } else if (what === "copy") copyAnswer(turn, button);
  else if (what === "up" || what === "down") rate(turn, what, "");
});
$("#turns").addEventListener("submit", (event) => {
  event.preventDefault();
  const [turn, view] = turnOf(event.target);
  rate(turn, turn.verdict, plain($(".remark input", view).value).trim());
});
