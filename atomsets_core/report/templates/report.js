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

  // A click on a shortlisted point leads to its card: the crystal, and the known materials nearest to it.
  const escaped = (text) => text.replace(/&/g, "&amp;").replace(/</g, "&lt;").replace(/>/g, "&gt;");
  const cards = new Map([...document.querySelectorAll("tr[data-card]")].map((row) => [escaped(row.dataset.id), row.dataset.card]));
  for (const { element } of plots) {
    element.on("plotly_click", ({ points }) => {
      const card = points.map((point) => cards.get(point.customdata?.[0])).find(Boolean);
      if (!card) return;
      document.getElementById(card).hidden = false;
      location.hash = card;
    });
  }
  dark.addEventListener("change", () => draw(dark.matches, {}));
  addEventListener("beforeprint", () => draw(false, { width: 640, height: 340, autosize: false }));
  addEventListener("afterprint", () => draw(dark.matches, { autosize: true }));
})();

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
