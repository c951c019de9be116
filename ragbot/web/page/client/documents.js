// A visitor's own documents: adding them with progress, removing them, asking them.

const dialog = $("#documents");
let names = [];
let limits = null;
let adding = 0; // files under way

function drawDocuments() {
  if (!limits) return;
  const size = limits.megabytes, characters = number(limits.characters);
  $("#documents-text").textContent = say("documents_text", limits);
  $("#limits").textContent = say("limits", { ...limits, size, characters });
  $("#kinds").textContent = say("kinds", limits.kinds);
  $("#files").accept = limits.kinds.replaceAll(" ", "");
  $("#names").replaceChildren(...names.map(fileRow));
  $("#no-names").hidden = names.length > 0;
  $("#count").textContent = names.length ? String(names.length) : "";
  const had = !$("#scope").hidden;
  $("#scope").hidden = !names.length;
  if (!names.length) $("#scope input[value=site]").checked = true;
  else if (!had && kept("scope", "site") === "mine") $("#scope input[value=mine]").checked = true;
  drawChoice();
}

function fileRow(name) {
  const label = say("remove", plain(name));
  const drop = node("button", { type: "button", className: "icon", title: label }, icon("bin"));
  drop.setAttribute("aria-label", label);
  drop.onclick = () => removeFile(name);
  return node("li", {}, icon("file"), node("bdi", { textContent: plain(name) }), drop);
}

async function removeFile(name) {
  const reply = await call({ do: "remove", name });
  if (reply.error) return uploadWrong(reply.error);
  names = reply.names;
  drawDocuments();
  uploadWrong(null);
  announce(say("removed", plain(name)));
  $("#close-documents").focus();
}

function uploadWrong(error) {
  const place = $("#upload-wrong");
  if (!error) place.textContent = "";
  else if (WORDS["upload_" + error.code]) {
    const values = { ...limits, size: limits.megabytes, characters: number(limits.characters) };
    place.textContent = say("upload_" + error.code, { ...values, name: plain(error.name || "") });
  } else place.textContent = wrong(error);
}

// What would be refused anyway is not sent first.
function refused(files) {
  if (names.length + files.length > limits.files) return { code: "count" };
  const large = files.find((file) => file.size > limits.megabytes * 2 ** 20);
  if (large) return { code: "size", name: large.name };
  const kinds = limits.kinds.split(", ");
  const odd = files.find((file) => !kinds.some((kind) => file.name.toLowerCase().endsWith(kind)));
  return odd ? { code: "kind", name: odd.name } : null;
}

async function addFiles(files) {
  if (!limits) await begin(); // the page was quicker than the server
  if (!files.length || adding || !limits) return;
  const error = refused(files);
  uploadWrong(error);
  if (error) return;
  adding = files.length;
  drawAdding(say("uploading"), null);
  const stored = [];
  try {
    // Under a name of ours: Gradio keeps files of the same content and name in the same place.
    for (const file of files) {
      const sent = await upload(new File([file], token()));
      stored.push({ name: file.name, stored: sent.path });
    }
  } catch {
    adding = 0;
    drawAdding("", null);
    return uploadWrong({ code: "lost" });
  }
  if (!adding) return; // cancelled meanwhile
  drawAdding(say("queued"), null);
  follow();
  const reply = await call({ do: "add", files: stored });
  adding = 0;
  drawAdding("", null);
  if (reply.error) return uploadWrong(reply.error);
  names = reply.names;
  keep("scope", "mine");
  drawDocuments();
  $("#scope input[value=mine]").checked = true;
  drawChoice();
  dialog.close();
  toast(say("added"));
  box.focus();
}

async function follow() {
  while (adding) {
    await new Promise((done) => setTimeout(done, 500));
    const reply = adding ? await call({ do: "progress" }) : {};
    if (adding && reply.percent != null) drawAdding(say("indexing", reply.percent), reply.percent);
  }
}

function drawAdding(text, percent) {
  $("#adding").hidden = !adding;
  $("#drop").inert = Boolean(adding);
  $("#adding-text").textContent = text;
  const bar = $("#bar");
  bar.setAttribute("aria-label", text);
  if (percent == null) bar.removeAttribute("value");
  else bar.value = percent;
}

function openDocuments() {
  uploadWrong(null);
  drawDocuments();
  dialog.showModal();
}

$("#open-documents").addEventListener("click", openDocuments);
$("#close-documents").addEventListener("click", () => dialog.close());
dialog.addEventListener("click", (event) => {
  if (event.target === dialog) dialog.close(); // on the veil around it
});
$("#cancel-adding").addEventListener("click", () => {
  if (!adding) return;
  adding = 0;
  drawAdding("", null);
  announce(say("cancelled"));
  call({ do: "cancel" });
});
$("#files").addEventListener("change", (event) => {
  const files = [...event.target.files];
  event.target.value = "";
  addFiles(files);
});
for (const kind of ["dragenter", "dragover"]) {
  $("#drop").addEventListener(kind, (event) => {
    event.preventDefault();
    $("#drop").classList.add("over");
  });
}
for (const kind of ["dragleave", "drop"]) {
  $("#drop").addEventListener(kind, () => $("#drop").classList.remove("over"));
}
$("#drop").addEventListener("drop", (event) => {
  event.preventDefault();
  addFiles([...event.dataTransfer.files]);
});
$("#scope").addEventListener("change", (event) => {
  keep("scope", event.target.value);
  drawChoice();
});
