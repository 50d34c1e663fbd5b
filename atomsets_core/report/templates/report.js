"use strict";

// Figures: data from the page, colours of text and grid from the scheme the reader has chosen.
(() => {
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const plots = [];

  function axis(isDark) {
    const line = isDark ? "#363d46" : "#dfe3e8";
    return { gridcolor: line, linecolor: isDark ? "#6b7480" : "#858b94", zerolinecolor: line, ticks: "outside",
      tickcolor: isDark ? "#6b7480" : "#858b94", ticklen: 4, showline: true, zeroline: false, automargin: true };
  }

  function look(isDark) {
    return {
      paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)",
      font: { color: isDark ? "#e6e9ed" : "#1b2027", size: 13, family: "system-ui, -apple-system, 'Segoe UI', Roboto, Arial, sans-serif" },
      hoverlabel: { bgcolor: isDark ? "#1d2228" : "#ffffff", bordercolor: "#858b94", font: { color: isDark ? "#e6e9ed" : "#1b2027" } },
      legend: { orientation: "h", x: 0, y: 0, yref: "container", yanchor: "bottom", bgcolor: "rgba(0,0,0,0)", font: { size: 12 } },
      modebar: { bgcolor: "rgba(0,0,0,0)", color: "#858b94", activecolor: isDark ? "#e6e9ed" : "#1b2027" },
      margin: { l: 60, r: 14, t: 32, b: 40 },
    };
  }

  function layout(own, isDark) {
    const merged = { ...own, ...look(isDark) };
    for (const name of ["xaxis", "yaxis"]) merged[name] = { ...axis(isDark), ...own[name] };
    merged.legend = { ...merged.legend, ...own.legend };
    return merged;
  }

  function draw(isDark, size) {
    for (const { element, figure } of plots) {
      Plotly.react(element, figure.data, { ...layout(figure.layout, isDark), ...size },
        { responsive: true, displaylogo: false, modeBarButtons: [["toImage", "zoom2d", "pan2d", "resetScale2d"]] });
    }
  }

  for (const script of document.querySelectorAll("script[data-plot]")) {
    plots.push({ element: document.getElementById(script.dataset.plot), figure: JSON.parse(script.textContent) });
  }
  draw(dark.matches, {});
  dark.addEventListener("change", () => draw(dark.matches, {}));
  addEventListener("beforeprint", () => draw(false, { width: 640, height: 340, autosize: false }));
  addEventListener("afterprint", () => draw(dark.matches, { autosize: true }));
})();

// Tables: a click on a heading sorts, a second one turns the order round; rows without a value stay last.
for (const table of document.querySelectorAll("table.sortable")) {
  const body = table.tBodies[0];
  for (const button of table.tHead.querySelectorAll("button")) {
    button.addEventListener("click", () => {
      const heading = button.closest("th");
      const isNumber = button.dataset.kind === "number";
      const ascending = heading.getAttribute("aria-sort") !== "ascending";
      const value = (row) => {
        const cell = row.cells[heading.cellIndex];
        const text = cell.dataset.value ?? cell.textContent.trim();
        return isNumber ? Number.parseFloat(text) : text;
      };
      const missing = (item) => (isNumber ? Number.isNaN(item) : item === "");
      const order = (a, b) => (isNumber ? a - b : a.localeCompare(b, "en", { numeric: true }));
      const rows = [...body.rows].sort((first, second) => {
        const [a, b] = [value(first), value(second)];
        if (missing(a) || missing(b)) return missing(a) - missing(b);
        return ascending ? order(a, b) : order(b, a);
      });
      for (const other of table.tHead.querySelectorAll("th")) other.setAttribute("aria-sort", "none");
      heading.setAttribute("aria-sort", ascending ? "ascending" : "descending");
      body.append(...rows);
      arrangeCards(rows);
    });
  }
}

for (const input of document.querySelectorAll("input[data-filter]")) {
  const table = document.getElementById(input.dataset.filter);
  const status = document.querySelector(`[data-count="${input.dataset.filter}"]`);
  const inside = document.querySelector(`input[data-inside="${input.dataset.filter}"]`);
  const filter = () => {
    const words = input.value.toLowerCase().split(/\s+/).filter(Boolean);
    const rows = [...table.tBodies[0].rows];
    for (const row of rows) {
      const text = row.textContent.toLowerCase();
      row.hidden = !words.every((word) => text.includes(word)) || (inside.checked && row.dataset.inside === "0");
    }
    const shown = rows.filter((row) => !row.hidden).length;
    status.textContent = shown < rows.length || words.length ? `${shown} of ${rows.length} shown` : "";
    arrangeCards(rows);
  };
  input.addEventListener("input", filter);
  inside.addEventListener("change", filter);
}

// The cards follow the table: the same order, and only what the filter leaves.
function arrangeCards(rows) {
  for (const row of rows) {
    const card = row.dataset.card && document.getElementById(row.dataset.card);
    if (!card) continue;
    card.hidden = row.hidden;
    card.parentElement.append(card);
  }
}

for (const button of document.querySelectorAll("button[data-copy]")) {
  button.addEventListener("click", async () => {
    const text = document.getElementById(button.dataset.copy);
    const status = document.getElementById("copied");
    try {
      await navigator.clipboard.writeText(text.textContent.trim());
      status.textContent = "Copied.";
    } catch {
      getSelection().selectAllChildren(text);
      status.textContent = "Selected: press Ctrl+C to copy.";
    }
  });
}
