// What every other part uses: elements, words in the reader's language, what is said aloud.
// The parts are joined into one function (ragbot/web/page.py), which Gradio calls with `element`,
// `trigger`, `props`, `server`, `upload` and `watch`. Text of others is only ever set as text, or
// comes escaped from the server.

const root = element.querySelector("#ragbot");
const $ = (selector, within = root) => within.querySelector(selector);
const all = (selector, within = root) => [...within.querySelectorAll(selector)];
const narrow = window.matchMedia("(max-width: 800px)");
const middling = window.matchMedia("(max-width: 1180px)");
const calm = window.matchMedia("(prefers-reduced-motion: reduce)");
const darkness = window.matchMedia("(prefers-color-scheme: dark)");

let language = "en";

function say(key, values) {
  const row = WORDS[key] || WORDS.error_failed;
  const text = row[LANGUAGES.indexOf(language)];
  return text.replace(/\{(\w*)\}/g, (_, name) => (name ? values[name] : values));
}

// Marks that turn the direction of what follows, and other controls: ragbot/web/markup.py.
function plain(text) {
  // eslint-disable-next-line no-control-regex
  return text.replace(/[\0-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]/g, "");
}

function node(name, fields = {}, ...children) {
  const made = document.createElement(name);
  for (const [field, value] of Object.entries(fields)) {
    if (field.includes("-")) made.setAttribute(field, value);
    else made[field] = value;
  }
  made.append(...children);
  return made;
}

function icon(name) {
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  const use = document.createElementNS("http://www.w3.org/2000/svg", "use");
  use.setAttribute("href", "#i-" + name);
  svg.append(use);
  return svg;
}

// Random and not to be guessed: what a visitor's documents are kept under. Unlike randomUUID, it is
// there on pages without a certificate, too.
function token() {
  const bytes = crypto.getRandomValues(new Uint8Array(18));
  return btoa(String.fromCharCode(...bytes)).replaceAll("+", "-").replaceAll("/", "_");
}

function announce(text) {
  const news = $("#news");
  news.textContent = "";
  setTimeout(() => (news.textContent = text), 50); // the same words twice are news twice
}

let toastTimer = 0;
function toast(text, label, action) {
  const box = $("#toast"), button = $("#toast-do");
  $("#toast-text").textContent = text;
  button.hidden = !label;
  button.textContent = label || "";
  button.onclick = () => {
    box.hidden = true;
    action();
  };
  box.hidden = false;
  const under = $("#composer").getBoundingClientRect();
  const left = under.left + (under.width - box.offsetWidth) / 2;
  box.style.left = Math.max(16, left) + "px";
  box.style.bottom = window.innerHeight - under.top + 8 + "px";
  announce(text);
  clearTimeout(toastTimer);
  toastTimer = setTimeout(() => (box.hidden = true), label ? 10000 : 4000);
}

function words(within = root) {
  for (const one of all("[data-t]", within)) one.textContent = say(one.dataset.t);
  for (const one of all("[data-t-label]", within)) {
    const text = say(one.dataset.tLabel);
    one.setAttribute("aria-label", text);
    if (one.matches(".icon")) one.title = text;
  }
  for (const one of all("[data-t-placeholder]", within)) {
    one.placeholder = say(one.dataset.tPlaceholder);
  }
}

function number(value) {
  return new Intl.NumberFormat(language).format(value);
}

// --- settings, kept in the browser ------------------------------------------------------------

function kept(name, fallback) {
  try {
    return localStorage.getItem("ragbot:" + name) ?? fallback;
  } catch {
    return fallback; // storage is forbidden: the page works, and forgets
  }
}

function keep(name, value) {
  try {
    localStorage.setItem("ragbot:" + name, value);
  } catch {
    // as above
  }
}

function spoken() {
  const chosen = kept("language", "");
  if (LANGUAGES.includes(chosen)) return chosen;
  for (const tag of navigator.languages || [navigator.language]) {
    const [first, ...rest] = tag.toLowerCase().split("-");
    if (first === "en") return "en";
    if (first === "zh") {
      const hant = !rest.includes("hans") && ["hant", "tw", "hk", "mo"].some((at) => rest.includes(at));
      return hant ? "zh-Hant" : "zh-Hans";
    }
  }
  return "en";
}

function dress() {
  const theme = kept("theme", "system");
  const dark = theme === "dark" || (theme === "system" && darkness.matches);
  document.documentElement.dataset.theme = dark ? "dark" : "light";
}

const visitor = kept("visitor", "") || token();
keep("visitor", visitor);

// --- the server --------------------------------------------------------------------------------

// A short question to the server, which answers with an object; {error: {code}} where it cannot.
async function call(request) {
  let reply;
  try {
    reply = await server.serve({ visitor, language, ...request });
  } catch {
    reply = undefined;
  }
  return reply ?? { error: { code: "lost" } };
}

function wrong(error) {
  return say("error_" + error.code, error.value ?? "");
}
