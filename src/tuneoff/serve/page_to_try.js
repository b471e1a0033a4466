"use strict";
// Texts are shown with textContent only: they never become markup.
const ask = document.getElementById("ask"), results = document.getElementById("results");
const button = ask.querySelector("button"), message = document.getElementById("message");
let about = null, latest = 0;

function element(tag, className, text) {
  const made = document.createElement(tag);
  if (className) made.className = className;
  if (text !== undefined) made.textContent = text;
  return made;
}

async function request(path, body) {
  const options = body && { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body) };
  const response = await fetch(path, options);
  const answer = await response.json();
  if (!response.ok) throw new Error(answer.error);
  return answer;
}

function show(error) {
  message.textContent = error ? error.message : "";
  message.hidden = !error;
}

function percent(share) { return `${(100 * share).toFixed(1)} %`; }

function card(result, classes) {
  const made = element("article", "model" + (result.recommended ? " recommended" : ""));
  const heading = element("h2", "", result.strategy);
  if (result.recommended) heading.append(element("span", "soft", " · recommended"));
  if (result.encoder) heading.append(element("span", "soft", ` · ${result.encoder.split("/").pop()}`));
  const probabilities = result.probabilities[0], label = result.labels[0];
  const answer = element("p", "answer");
  if (Array.isArray(label)) answer.append(element("strong", "", label.join(", ") || "no label"));
  else answer.append(element("strong", "", label), ` ${percent(probabilities[classes.indexOf(label)])}`);
  const bars = element("div", "bars");
  let order = probabilities.map((share, index) => [share, index]);
  if (order.length > 6) order = order.sort((a, b) => b[0] - a[0]).slice(0, 6);  // a few classes keep their order
  for (const [share, index] of order) {
    const bar = element("div", "bar"), filled = element("i");
    filled.style.setProperty("width", `${100 * share}%`);
    bar.append(filled);
    bars.append(element("span", "", classes[index]), bar, element("span", "number", percent(share)));
  }
  made.append(heading, answer, bars);
  return made;
}

function words(result, texts) {
  if (!result.words) return element("p", "soft", result.words_reason);
  const box = element("div");
  const largest = Math.max(...result.words.map((word) => Math.abs(word.score)), 1e-12);
  texts.forEach((text, part) => {
    const shown = element("p", "words-of");
    shown.dir = "auto";
    const characters = Array.from(text);  // places count characters, JavaScript's strings count 16 bits
    let at = 0;
    for (const word of result.words.filter((w) => w.part === part)) {
      shown.append(characters.slice(at, word.start).join(""));
      const marked = element("span", "word", characters.slice(word.start, word.end).join(""));
      marked.dataset.side = word.score >= 0 ? "for" : "against";
      marked.style.setProperty("--share", `${Math.round(60 * Math.abs(word.score) / largest)}%`);
      marked.title = `${word.score >= 0 ? "+" : "−"}${Math.abs(word.score).toFixed(3)} for ${result.explained}`;
      shown.append(marked);
      at = word.end;
    }
    shown.append(characters.slice(at).join(""));
    box.append(shown);
  });
  return box;
}

async function classify() {
  const texts = [ask.elements.first.value, ...(about.is_pair ? [ask.elements.second.value] : [])];
  if (texts.every((text) => !text.trim())) return;
  const row = about.is_pair ? texts : texts[0], turn = ++latest;
  button.disabled = true;
  show(null);
  try {
    const answer = await request("predict", { texts: [row] });
    const cards = answer.results.map((result) => card(result, answer.classes));
    results.replaceChildren(...cards);
    button.disabled = false;
    for (const [index, result] of answer.results.entries()) {  // words take longer: one model after the other
      if (turn !== latest) return;
      const explained = await request("predict", { texts: [row], strategy: result.strategy, explain: true });
      const own = explained.results.find((r) => r.run === result.run);
      if (turn === latest) cards[index].append(words(own, texts));
      if (own.words) document.getElementById("legend").hidden = false;
    }
    results.dataset.done = turn;
  } catch (error) {
    show(error);
  } finally {
    button.disabled = false;
  }
}

async function start() {
  about = await request("models");
  const count = about.models.length;
  document.getElementById("about").textContent =
    `${count} ${count === 1 ? "model" : "models"} · ${about.is_multilabel ? "labels" : "classes"}: ${about.classes.join(", ")}`;
  document.getElementById("second").hidden = !about.is_pair;
  if (about.is_pair) document.getElementById("first-name").textContent = "first text";
  for (const place of document.querySelectorAll("[data-limit]"))
    place.textContent = about.limits[place.dataset.limit].toLocaleString("en");
  const example = about.is_pair ? [["first", "second"]] : ["a fine film"];
  document.getElementById("curl").textContent =
    `curl ${location.origin}/predict -H 'Content-Type: application/json' -d '${JSON.stringify({ texts: example, explain: true })}'`;
}

ask.addEventListener("submit", (event) => { event.preventDefault(); classify(); });
ask.addEventListener("keydown", (event) => { if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) classify(); });
start().catch(show);
