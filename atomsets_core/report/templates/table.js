"use strict";

// The shortlist: sorted by a click on a heading, filtered by elements, formulas, words, numbers and domain. What is asked
// for stands in the address after #show:, so that a link shows the same. The cards follow the table.
(() => {
  const MARK = "#show:";

  // Formula -> amounts of its elements, or null where it isn't one: "Co(BW)2" -> {Co: 1, B: 2, W: 2}.
  function amounts(text, known) {
    const stack = [{}];
    const token = /([A-Z][a-z]?)([0-9.]*)|([(\[])|[)\]]([0-9.]*)/gy;
    let at = 0;
    while (at < text.length) {
      token.lastIndex = at;
      const found = token.exec(text);
      if (!found) return null;
      at = token.lastIndex;
      if (found[1]) {
        if (!known.has(found[1])) return null;
        const top = stack.at(-1);
        top[found[1]] = (top[found[1]] ?? 0) + Number(found[2] || 1);
      } else if (found[3]) {
        stack.push({});
      } else {
        if (stack.length < 2) return null;
        const inner = stack.pop();
        for (const [symbol, n] of Object.entries(inner)) {
          stack.at(-1)[symbol] = (stack.at(-1)[symbol] ?? 0) + n * Number(found[4] || 1);
        }
      }
    }
    const whole = stack.length === 1 && Object.values(stack[0]).every((n) => n > 0);
    return whole && Object.keys(stack[0]).length ? stack[0] : null;
  }

  function same(a, b) {
    const total = (x) => Object.values(x).reduce((sum, n) => sum + n, 0);
    const names = Object.keys(a);
    return names.length === Object.keys(b).length &&
      names.every((symbol) => symbol in b && Math.abs(a[symbol] / total(a) - b[symbol] / total(b)) < 1e-6);
  }

  // One word of the search: an element, a chemical system as in Cr-W-N, a formula, or part of a text.
  function matcher(word, known) {
    const symbol = /^[A-Z][a-z]?$/.test(word) ? word : /^[a-z]{1,2}$/.test(word) ? word[0].toUpperCase() + word.slice(1) : "";
    if (known.has(symbol)) return (row) => symbol in row.amounts;
    const system = word.split("-");
    if (system.length > 1 && system.every((part) => known.has(part))) {
      return (row) => Object.keys(row.amounts).length === new Set(system).size && system.every((part) => part in row.amounts);
    }
    const formula = amounts(word, known);
    const lower = word.toLowerCase();
    return (row) => (formula && same(formula, row.amounts)) || row.formula.includes(word) || row.text.includes(lower);
  }

  function setUp(tools) {
    const table = document.getElementById(tools.dataset.tools);
    const status = tools.querySelector("[role=status]");
    const [search, inside] = [tools.elements.q, tools.elements.inside];
    const chips = [...tools.querySelectorAll("[data-element]")];
    const ends = [...tools.querySelectorAll("[data-column]")];
    const headings = [...table.tHead.querySelectorAll("th")];
    const known = new Set(tools.dataset.known.split(" "));
    const asWritten = [...table.tBodies[0].rows];
    const state = { elements: new Map(), sort: "", down: false };
    const about = new Map(asWritten.map((row) => [row, {
      formula: row.dataset.formula,
      amounts: amounts(row.dataset.formula, known) ?? {},
      text: `${row.dataset.find} ${row.dataset.formula}`.toLowerCase(),
    }]));

    const columnOf = (key) => headings.findIndex((heading) => heading.dataset.key === key);
    function value(row, index, isNumber) {
      const cell = row.cells[index];
      const text = cell.dataset.value ?? cell.textContent.trim();
      return isNumber ? Number.parseFloat(text) : text;
    }

    function sort() {
      const index = columnOf(state.sort);
      const rows = [...asWritten];
      if (index >= 0) {
        const isNumber = headings[index].querySelector("button").dataset.kind === "number";
        const missing = (item) => (isNumber ? Number.isNaN(item) : item === "");
        const order = (a, b) => (isNumber ? a - b : a.localeCompare(b, "en", { numeric: true }));
        rows.sort((first, second) => {
          const [a, b] = [value(first, index, isNumber), value(second, index, isNumber)];
          if (missing(a) || missing(b)) return missing(a) - missing(b);
          return state.down ? order(b, a) : order(a, b);
        });
      }
      headings.forEach((heading, i) => heading.setAttribute("aria-sort", i !== index ? "none" : state.down ? "descending" : "ascending"));
      table.tBodies[0].append(...rows);
      return rows;
    }

    function filter(rows) {
      const words = search.value.split(/[\s,;]+/).filter(Boolean).map((word) => {
        const without = word.length > 1 && word.startsWith("-");
        const test = matcher(without ? word.slice(1) : word, known);
        return without ? (row) => !test(row) : test;
      });
      const bounds = ends.filter((end) => end.value !== "" && Number.isFinite(end.valueAsNumber)).map((end) => {
        const index = columnOf(end.dataset.column);
        const sign = end.dataset.end === "min" ? 1 : -1;
        return (row) => sign * (value(row, index, true) - end.valueAsNumber) >= 0;
      });
      for (const row of rows) {
        const one = about.get(row);
        row.hidden = !(words.every((test) => test(one)) && bounds.every((test) => test(row)) &&
          [...state.elements].every(([symbol, wanted]) => symbol in one.amounts === wanted) &&
          !(inside.checked && row.dataset.inside === "0"));
      }
      const shown = rows.filter((row) => !row.hidden).length;
      const asked = words.length + bounds.length + state.elements.size + (inside.checked ? 1 : 0);
      status.textContent = asked ? `${shown} of ${rows.length} shown` : "";
      tools.classList.toggle("asked", Boolean(asked || state.sort));
    }

    function cards(rows) {
      for (const row of rows) {
        const card = row.dataset.card && document.getElementById(row.dataset.card);
        if (!card) continue;
        card.hidden = row.hidden;
        card.parentElement.append(card);
      }
    }

    function showChips() {
      for (const chip of chips) {
        const wanted = state.elements.get(chip.dataset.element);
        chip.setAttribute("aria-pressed", wanted === undefined ? "false" : wanted ? "true" : "mixed");
        chip.setAttribute("aria-label", `${chip.title}: ${wanted === undefined ? "any" : wanted ? "with it" : "without it"}`);
      }
    }

    function address() {
      const asked = new URLSearchParams();
      const elements = [...state.elements].map(([symbol, wanted]) => (wanted ? symbol : `-${symbol}`));
      if (search.value.trim()) asked.set("q", search.value.trim());
      if (elements.length) asked.set("elements", elements.join(","));
      for (const end of ends) if (end.value !== "") asked.set(`${end.dataset.end}.${end.dataset.column}`, end.value);
      if (inside.checked) asked.set("domain", "inside");
      if (state.sort) asked.set("sort", (state.down ? "-" : "") + state.sort);
      const text = asked.toString();
      return text ? MARK + text : "";
    }

    function remember() {
      const [page, now] = [location.href.split("#")[0], address()];
      if (!now && !location.hash.startsWith(MARK)) return;
      try {
        history.replaceState(null, "", page + (now || "#shortlist"));
      } catch {
        // a page inside another may not change its address
      }
    }

    function refresh() {
      const rows = sort();
      filter(rows);
      cards(rows);
      showChips();
    }

    function changed() {
      refresh();
      remember();
    }

    function recall() {
      if (!location.hash.startsWith(MARK)) return false;
      const asked = new URLSearchParams(location.hash.slice(MARK.length));
      search.value = asked.get("q") ?? "";
      inside.checked = asked.get("domain") === "inside";
      state.elements.clear();
      for (const part of (asked.get("elements") ?? "").split(",")) {
        const symbol = part.replace(/^-/, "");
        if (known.has(symbol)) state.elements.set(symbol, part === symbol);
      }
      for (const end of ends) end.value = asked.get(`${end.dataset.end}.${end.dataset.column}`) ?? "";
      const sorted = asked.get("sort") ?? "";
      [state.sort, state.down] = [sorted.replace(/^-/, ""), sorted.startsWith("-")];
      if (columnOf(state.sort) < 0) [state.sort, state.down] = ["", false];
      for (const fold of tools.querySelectorAll("details")) {
        fold.open = [...fold.querySelectorAll("[data-column]")].some((end) => end.value !== "") ||
          (state.elements.size > 0 && fold.querySelector("[data-element]") !== null);
      }
      refresh();
      return true;
    }

    for (const heading of headings) {
      heading.querySelector("button").addEventListener("click", () => {
        const key = heading.dataset.key;
        state.down = state.sort === key && !state.down;
        state.sort = key;
        changed();
      });
    }
    for (const chip of chips) {
      chip.addEventListener("click", () => {
        const { element } = chip.dataset;
        const wanted = state.elements.get(element);
        if (wanted === undefined) state.elements.set(element, true);
        else if (wanted) state.elements.set(element, false);
        else state.elements.delete(element);
        changed();
      });
    }
    tools.addEventListener("submit", (event) => event.preventDefault());
    tools.addEventListener("input", changed);
    tools.addEventListener("reset", () => {
      state.elements.clear();
      [state.sort, state.down] = ["", false];
      setTimeout(changed);
    });
    tools.querySelector("[data-share]").addEventListener("click", async () => {
      const link = location.href.split("#")[0] + (address() || "#shortlist");
      try {
        await navigator.clipboard.writeText(link);
        status.textContent = "Link copied.";
      } catch {
        status.textContent = "The link is in the address bar.";
      }
    });
    showChips();
    const comeTo = () => recall() && document.getElementById("shortlist").scrollIntoView();
    addEventListener("hashchange", comeTo);
    comeTo();
  }

  for (const tools of document.querySelectorAll("form[data-tools]")) setUp(tools);

  // Tables that are wider than the window say so.
  const wide = [...document.querySelectorAll(".scroll")];
  const measure = () => {
    for (const box of wide) box.classList.toggle("overflows", box.scrollWidth > box.clientWidth + 1);
  };
  measure();
  addEventListener("resize", measure);
})();
