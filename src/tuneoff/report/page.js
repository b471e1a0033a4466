"use strict";
const stored = (id) => JSON.parse(document.getElementById(id).textContent);
const create = (tag, className, text) => {
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

// Menus of charts, of which one shows.
for (const menu of document.querySelectorAll(".menu")) {
  menu.querySelector("select").addEventListener("change", (event) => {
    for (const figure of menu.querySelectorAll("figure")) figure.hidden = figure.dataset.chart !== event.target.value;
  });
}

// Tables: a click on a heading sorts by that column. Numbers carry their value in data-sort.
function sort(table, column, ascending) {
  const keyed = [...table.tBodies[0].rows].map((row) => {
    const cell = row.cells[column];
    const text = cell.textContent.trim();
    return [row, "sort" in cell.dataset ? Number(cell.dataset.sort) : cell.classList.length && text !== "–" ? text.toLowerCase() : null];
  });
  const order = ascending ? 1 : -1;
  keyed.sort(([, a], [, b]) => {
    if (a === null || b === null) return (a === null) - (b === null); // missing values last
    return order * (typeof a === "number" && typeof b === "number" ? a - b : String(a).localeCompare(String(b)));
  });
  table.tBodies[0].append(...keyed.map(([row]) => row));
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
  const MAX_STRATEGIES = 12; // named at each example
  const data = stored("examples");
  const { texts, lengths, labels, names, strategies } = data;
  const form = browser.querySelector("form");
  const list = browser.querySelector(".list");
  const named = (ids) => ids.map((id) => names[id]).join(", ") || "no label";
  const isWrong = (strategy, index) => String(strategy.predicted[index]) !== String(labels[index]); // the majority of seeds
  const missed = labels.map((_, index) => strategies.filter((strategy) => isWrong(strategy, index)).length);
  for (const [name, options] of [["strategy", strategies.map((strategy) => strategy.name)], ["label", names], ["predicted", names]]) {
    options.forEach((text, value) => {
      const option = create("option", "", text.length > 60 ? text.slice(0, 59) + "…" : text);
      option.value = value;
      form.elements[name].append(option);
    });
  }
  const tagged = Object.entries(data.tags).map(([name, places]) => [name, new Set(places)]);
  tagged.forEach(([name, places], value) => {
    const option = create("option", "", `${name} (${places.size.toLocaleString("en")})`);
    option.value = value;
    form.elements.tag.append(option);
  });
  let matches = [];
  let page = 0;
  function filter() {
    const filters = Object.fromEntries(new FormData(form));
    const chosen = filters.strategy === "" ? strategies : [strategies[filters.strategy]];
    const words = filters.words.trim().toLowerCase().split(/\s+/).filter(Boolean);
    const shortest = filters.shortest === "" ? -Infinity : Number(filters.shortest);
    const longest = filters.longest === "" ? Infinity : Number(filters.longest);
    matches = labels.map((_, index) => index).filter((index) => {
      if (filters.label !== "" && !labels[index].includes(Number(filters.label))) return false;
      if (filters.tag && !tagged[filters.tag][1].has(index)) return false;
      if (lengths[index] < shortest || lengths[index] > longest) return false;
      if (filters.predicted !== "" && !chosen.some((strategy) => strategy.predicted[index].includes(Number(filters.predicted)))) return false;
      const wrong = chosen.filter((strategy) => isWrong(strategy, index)).length;
      if (filters.outcome === "wrong" && wrong === 0) return false;
      if (filters.outcome === "right" && wrong > 0) return false;
      if (filters.outcome === "all" && missed[index] < strategies.length) return false;
      if (filters.outcome === "split" && (missed[index] === 0 || missed[index] === strategies.length)) return false;
      if (words.length === 0) return true;
      const text = texts.map((column) => column[index]).join(" ").toLowerCase();
      return words.every((word) => text.includes(word));
    });
    const confident = (index) => Math.max(0, ...chosen.filter((strategy) => isWrong(strategy, index)).map((strategy) => (strategy.confidence ? strategy.confidence[index] : 0)));
    const keys = { missed: (index) => missed[index], confident, long: (index) => lengths[index], short: (index) => -lengths[index] };
    if (filters.order in keys) {
      const values = new Map(matches.map((index) => [index, keys[filters.order](index)]));
      matches.sort((one, other) => values.get(other) - values.get(one) || one - other);
    }
    page = 0;
    show();
  }
  function show() {
    const pages = Math.max(1, Math.ceil(matches.length / PAGE));
    browser.querySelector(".count").textContent = `${matches.length.toLocaleString("en")} of ${labels.length.toLocaleString("en")} examples`;
    browser.querySelector(".page").textContent = `page ${(page + 1).toLocaleString("en")} of ${pages.toLocaleString("en")}`;
    browser.querySelector("[name=back]").disabled = page === 0;
    browser.querySelector("[name=next]").disabled = page + 1 >= pages;
    list.replaceChildren(...matches.slice(page * PAGE, (page + 1) * PAGE).map(example));
  }
  function example(index) {
    const block = create("div", "example");
    for (const column of texts) {
      const text = create("p", "", column[index]);
      text.dir = "auto";
      block.append(text);
    }
    const chips = create("div", "chips");
    chips.append(create("span", "label", `${named(labels[index])} (example ${data.examples[index].toLocaleString("en")})`));
    for (const strategy of strategies.slice(0, MAX_STRATEGIES)) {
      const wrong = strategy.wrong[index];
      const seeds = strategy.seeds > 1 && wrong > 0 && wrong < strategy.seeds ? `, ${wrong} of ${strategy.seeds} seeds wrong` : "";
      const label = wrong > 0 || !strategy.confidence ? [named(strategy.predicted[index])] : [];
      const outcome = [...label, ...(strategy.confidence ? [`${strategy.confidence[index]} %`] : [])].join(" ") + seeds;
      const chip = create("span", isWrong(strategy, index) ? "wrong" : "right", `${isWrong(strategy, index) ? "✗" : "✓"} ${strategy.name}: ${outcome}`);
      chip.title = chip.textContent;
      chips.append(chip);
    }
    if (strategies.length > MAX_STRATEGIES) chips.append(create("span", "", `wrong for ${missed[index]} of ${strategies.length}`));
    block.append(chips);
    return block;
  }
  form.addEventListener("input", filter);
  form.addEventListener("submit", (event) => event.preventDefault());
  browser.querySelector("[name=back]").addEventListener("click", () => { page -= 1; show(); });
  browser.querySelector("[name=next]").addEventListener("click", () => { page += 1; show(); });
  filter();
}
