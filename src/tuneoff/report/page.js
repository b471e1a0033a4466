"use strict";
const stored = (id) => JSON.parse(document.getElementById(id).textContent);
const made = (tag, className, text) => {
  const element = document.createElement(tag);
  if (className) element.className = className;
  if (text !== undefined) element.textContent = text; // data is never markup
  return element;
};

// Charts: drawn when they come near the window, and again when light turns to dark.
const specs = stored("specs");
const dark = matchMedia("(prefers-color-scheme: dark)");
function draw(figure) {
  const ink = dark.matches ? "#b9bcc4" : "#4a4d55";
  const inks = { labelColor: ink, titleColor: ink };
  const config = { axis: { ...inks, gridColor: "#88888833", domainColor: ink, tickColor: ink }, legend: inks, header: inks, title: { color: ink } };
  figure.dataset.drawn = "yes";
  return vegaEmbed(figure, specs[figure.dataset.chart], { actions: false, renderer: "svg", config });
}
const figures = [...document.querySelectorAll("figure[data-chart]")];
const near = new IntersectionObserver((entries) => {
  for (const entry of entries) {
    if (entry.isIntersecting && !entry.target.dataset.drawn) draw(entry.target);
  }
}, { rootMargin: "800px" });
figures.forEach((figure) => near.observe(figure));
const drawAll = () => Promise.all(figures.filter((figure) => !figure.dataset.drawn).map(draw));
dark.addEventListener("change", () => figures.filter((figure) => figure.dataset.drawn).forEach(draw));
addEventListener("beforeprint", drawAll);

// The cost axis: one chart for each cost, of which one shows.
document.getElementById("cost")?.addEventListener("change", (event) => {
  for (const figure of document.querySelectorAll("figure[data-chart^='cost-']")) {
    figure.hidden = figure.dataset.chart !== event.target.value;
  }
});

// Tables: a click on a column's name sorts by it; numbers by their size, whatever their unit.
const units = { "%": 1, ms: 1e-3, s: 1, min: 60, h: 3600, B: 1, kB: 1e3, MB: 1e6, GB: 1e9, G: 1e9, T: 1e12, P: 1e15, x: 1, to: 1 };
function size(text) {
  if (text === "best") return 0;
  const found = text.replaceAll(",", "").match(/^[<\s]*([-+]?\d+(?:\.\d+)?)\s*([a-zA-Z%]*)/);
  return found && (found[2] === "" || found[2] in units) ? Number(found[1]) * (units[found[2]] ?? 1) : null;
}
function sort(table, column, ascending) {
  const rows = [...table.tBodies[0].rows];
  const values = new Map(rows.map((row) => [row, row.cells[column].textContent.replace(/[–—]$/, "").trim()]));
  const order = ascending ? 1 : -1;
  rows.sort((one, other) => {
    const [a, b] = [values.get(one), values.get(other)];
    if (a === "" || b === "") return (a === "") - (b === ""); // what is unknown stands last
    const [x, y] = [size(a), size(b)];
    return order * (x !== null && y !== null ? x - y : a.localeCompare(b));
  });
  table.tBodies[0].append(...rows);
}
for (const table of document.querySelectorAll("table")) {
  [...table.tHead.rows[0].cells].forEach((head, column) => {
    head.classList.add("sorts");
    head.tabIndex = 0;
    const click = () => {
      const ascending = head.getAttribute("aria-sort") === "descending";
      for (const other of table.tHead.rows[0].cells) other.removeAttribute("aria-sort");
      head.setAttribute("aria-sort", ascending ? "ascending" : "descending");
      sort(table, column, ascending);
    };
    head.addEventListener("click", click);
    head.addEventListener("keydown", (event) => (event.key === "Enter" || event.key === " ") && (event.preventDefault(), click()));
  });
}

// The browser of examples.
const browser = document.getElementById("browser");
if (browser) {
  const PAGE = 20;
  const MOST = 12; // strategies that are named at each example
  const data = stored("examples");
  const { texts, lengths, labels, names, strategies } = data;
  const form = browser.querySelector("form");
  const list = browser.querySelector(".list");
  const named = (ids) => ids.map((id) => names[id]).join(", ") || "no label";
  const isWrong = (strategy, index) => String(strategy.predicted[index]) !== String(labels[index]); // what most seeds say
  const missed = labels.map((_, index) => strategies.filter((strategy) => isWrong(strategy, index)).length);
  for (const [name, options] of [["strategy", strategies.map((strategy) => strategy.name)], ["label", names], ["predicted", names]]) {
    options.forEach((text, value) => {
      const option = made("option", "", text.length > 60 ? text.slice(0, 59) + "…" : text);
      option.value = value;
      form.elements[name].append(option);
    });
  }
  let found = [];
  let page = 0;
  function filter() {
    const asked = Object.fromEntries(new FormData(form));
    const chosen = asked.strategy === "" ? strategies : [strategies[asked.strategy]];
    const words = asked.words.trim().toLowerCase().split(/\s+/).filter(Boolean);
    const least = asked.least === "" ? -Infinity : Number(asked.least);
    const most = asked.most === "" ? Infinity : Number(asked.most);
    found = labels.map((_, index) => index).filter((index) => {
      if (asked.label !== "" && !labels[index].includes(Number(asked.label))) return false;
      if (lengths[index] < least || lengths[index] > most) return false;
      if (asked.predicted !== "" && !chosen.some((strategy) => strategy.predicted[index].includes(Number(asked.predicted)))) return false;
      const wrong = chosen.filter((strategy) => isWrong(strategy, index)).length;
      if (asked.outcome === "wrong" && wrong === 0) return false;
      if (asked.outcome === "right" && wrong > 0) return false;
      if (asked.outcome === "all" && missed[index] < strategies.length) return false;
      if (asked.outcome === "split" && (missed[index] === 0 || missed[index] === strategies.length)) return false;
      if (words.length === 0) return true;
      const text = texts.map((column) => column[index]).join(" ").toLowerCase();
      return words.every((word) => text.includes(word));
    });
    const sure = (index) => Math.max(0, ...chosen.filter((strategy) => isWrong(strategy, index)).map((strategy) => strategy.sure[index]));
    const keys = { missed: (index) => missed[index], sure, long: (index) => lengths[index], short: (index) => -lengths[index] };
    if (asked.order in keys) {
      const values = new Map(found.map((index) => [index, keys[asked.order](index)]));
      found.sort((one, other) => values.get(other) - values.get(one) || one - other);
    }
    page = 0;
    show();
  }
  function show() {
    const pages = Math.max(1, Math.ceil(found.length / PAGE));
    browser.querySelector(".count").textContent = `${found.length.toLocaleString("en")} of ${labels.length.toLocaleString("en")} examples`;
    browser.querySelector(".page").textContent = `page ${(page + 1).toLocaleString("en")} of ${pages.toLocaleString("en")}`;
    browser.querySelector("[name=back]").disabled = page === 0;
    browser.querySelector("[name=next]").disabled = page + 1 >= pages;
    list.replaceChildren(...found.slice(page * PAGE, (page + 1) * PAGE).map(example));
  }
  function example(index) {
    const block = made("div", "example");
    for (const column of texts) {
      const text = made("p", "", column[index]);
      text.dir = "auto";
      block.append(text);
    }
    const chips = made("div", "chips");
    chips.append(made("span", "label", `${named(labels[index])} (example ${data.examples[index].toLocaleString("en")})`));
    for (const strategy of strategies.slice(0, MOST)) {
      const wrong = strategy.wrong[index];
      const seeds = strategy.seeds > 1 && wrong > 0 && wrong < strategy.seeds ? `, ${wrong} of ${strategy.seeds} seeds wrong` : "";
      const says = wrong > 0 ? `${named(strategy.predicted[index])} ${strategy.sure[index]} %${seeds}` : `${strategy.sure[index]} %`;
      const chip = made("span", isWrong(strategy, index) ? "wrong" : "right", `${isWrong(strategy, index) ? "✗" : "✓"} ${strategy.name}: ${says}`);
      chip.title = chip.textContent;
      chips.append(chip);
    }
    if (strategies.length > MOST) chips.append(made("span", "", `missed by ${missed[index]} of ${strategies.length}`));
    block.append(chips);
    return block;
  }
  form.addEventListener("input", filter);
  form.addEventListener("submit", (event) => event.preventDefault());
  browser.querySelector("[name=back]").addEventListener("click", () => { page -= 1; show(); });
  browser.querySelector("[name=next]").addEventListener("click", () => { page += 1; show(); });
  filter();
}
