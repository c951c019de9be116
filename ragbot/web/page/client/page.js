// Puts the parts together: the first look at the page, and its language.

const EVERY_MINUTES = 10;

function speak(chosen) {
  language = chosen;
  document.documentElement.lang = chosen;
  root.lang = chosen;
  $("#language").value = chosen;
  words();
  drawTurns();
  drawTalks();
  drawStarts();
  drawDocuments();
}

// Begins over when the server was not there at first.
async function begin() {
  const reply = await call({ do: "begin" });
  if (reply.error) return toast(wrong(reply.error), say("retry"), begin);
  ({ names, limits, starts: openings } = reply);
  countDocuments();
  drawDocuments();
  drawStarts();
  setTimeout(moreStarts, 20000, 30);
}

// They may still be in the making.
async function moreStarts(times) {
  if (!times || fittingStarts().length === SHOWN_STARTS) return;
  const reply = document.hidden || talk.turns.length ? {} : await call({ do: "begin" });
  if (reply.starts) {
    openings = reply.starts;
    drawStarts();
  }
  setTimeout(moreStarts, 20000, times - 1);
}

async function stay() {
  const reply = await call({ do: "alive" });
  if (reply.error || adding) return;
  names = reply.names;
  drawDocuments();
}

for (const one of LANGUAGES) $("#language").append(node("option", { value: one, textContent: NAMES[one], lang: one }));
$("#language").addEventListener("change", async (event) => {
  keep("language", event.target.value);
  speak(event.target.value);
  if (await fill(true)) drawTurns();
  if (spot) openSpot(spot, opener).then(() => $("#language").focus());
});
$("#theme").value = kept("theme", "system");
$("#theme").addEventListener("change", (event) => {
  keep("theme", event.target.value);
  dress();
});
darkness.addEventListener("change", dress);
// A phone's keyboard covers the page without telling it: what is left is all there is.
window.visualViewport?.addEventListener("resize", () => {
  const seen = window.visualViewport;
  root.style.height = seen.scale === 1 && seen.height < window.innerHeight ? seen.height + "px" : "";
});
watch("value", () => heard(props.value));
setInterval(tick, 500);
setInterval(stay, EVERY_MINUTES * 60000);

dress();
root.dataset.list = middling.matches ? "closed" : kept("list", "open");
settle();
speak(spoken());
drawBusy();
trigger("hello", { visitor });
begin();
const before = tabKept("talk");
showTalk((before && loadTalk(before)) || talk).then(() => {
  const seen = tabKept("spot");
  if (seen && talk.turns.length && !narrow.matches) openSpot(seen, null);
  if (!talk.turns.length && !narrow.matches) box.focus();
});
root.dataset.ready = "true";
