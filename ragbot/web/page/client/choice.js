// Which documents are asked: all, or those that are ticked. The site's and the visitor's own apart.

const choice = $("#choice");
const MOST_CHOSEN = 100;
const FEW = 8; // names that need no box to find them in
const chosen = { site: [], mine: [], ...tabKept("chosen") };
let siteTotal = null; // until the server has told

async function countDocuments() {
  const reply = await call({ do: "list", scope: "site" });
  siteTotal = reply.total ?? siteTotal;
  drawChoice();
}

function drawChoice() {
  // What is gone is not asked for, and where there is nothing to choose nothing is left out.
  chosen.mine = names.length < 2 ? [] : chosen.mine.filter((name) => names.includes(name));
  if (siteTotal !== null && siteTotal < 2) chosen.site = [];
  $("#open-choice").hidden = (scope() === "mine" ? names.length : siteTotal) < 2;
  const count = chosen[scope()].length;
  $("#chosen").textContent = count ? say("chosen", number(count)) : say("all_documents");
  $("#open-choice").dataset.some = String(count > 0);
  tabKeep("chosen", chosen);
  drawStarts();
}

async function listDocuments() {
  const like = $("#like").value, from = scope();
  const reply = await call({ do: "list", scope: from, like });
  if (like !== $("#like").value || from !== scope()) return; // typed on meanwhile
  $("#choice-wrong").textContent = reply.error ? wrong(reply.error) : "";
  if (reply.error) return;
  const { total } = reply, shown = reply.names.length;
  const others = reply.names.filter((name) => !chosen[from].includes(name));
  $("#like").hidden = !like && total <= FEW;
  $("#choices").replaceChildren(...[...chosen[from], ...others].map(choiceRow));
  $("#more-documents").textContent = shown < total ? say("more_documents", { shown, total: number(total) }) : "";
  bound();
}

function choiceRow(name) {
  const tick = node("input", { type: "checkbox", checked: chosen[scope()].includes(name) });
  tick.onchange = () => {
    const others = chosen[scope()].filter((one) => one !== name);
    chosen[scope()] = tick.checked ? [...others, name] : others;
    bound();
    drawChoice();
  };
  return node("li", {}, node("label", {}, tick, node("bdi", { textContent: plain(name) })));
}

// The server takes so many and no more.
function bound() {
  const full = chosen[scope()].length >= MOST_CHOSEN;
  for (const tick of all("#choices input")) tick.disabled = full && !tick.checked;
}

$("#open-choice").addEventListener("click", () => {
  $("#like").value = "";
  $("#choices").replaceChildren();
  choice.showModal();
  listDocuments();
});
$("#like").addEventListener("input", listDocuments);
$("#all-documents").addEventListener("click", () => {
  chosen[scope()] = [];
  drawChoice();
  choice.close();
});
for (const one of ["#close-choice", "#choice-done"]) $(one).addEventListener("click", () => choice.close());
choice.addEventListener("click", (event) => {
  if (event.target === choice) choice.close(); // on the veil around it
});
