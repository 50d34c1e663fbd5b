"use strict";

// Structures that can be turned: one at a time, since a browser gives a page only a few WebGL contexts.
(() => {
  let live = null;
  const canDraw = (() => {
    try {
      return !!document.createElement("canvas").getContext("webgl2") || !!document.createElement("canvas").getContext("webgl");
    } catch {
      return false;
    }
  })();
  if (!canDraw) return;

  function colorOf(figure, atom, byShare) {
    if (!byShare) return figure.colors[atom[0]];
    const most = Math.max(...figure.shares.map(Math.abs)) || 1;
    const t = figure.shares[atom[1]] / most;
    const mix = (end) => end.map((c, i) => Math.round([225, 225, 225][i] + Math.abs(t) * (c - [225, 225, 225][i])));
    return `rgb(${mix(t < 0 ? [44, 127, 192] : [217, 119, 15]).join(",")})`;
  }

  function paint(state) {
    const { viewer, figure } = state;
    viewer.removeAllShapes();
    const point = (p) => ({ x: p[p.length - 3], y: p[p.length - 2], z: p[p.length - 1] });
    const style = getComputedStyle(document.documentElement);
    const edge = style.getPropertyValue("--quiet").trim();
    viewer.setBackgroundColor(style.getPropertyValue("--raised").trim());
    viewer.setStyle({}, { sphere: { scale: 0.3, colorfunc: (atom) => colorOf(figure, figure.atoms[atom.index], state.byShare) } });
    for (const [a, b] of figure.bonds) {
      viewer.addCylinder({ start: point(figure.atoms[a]), end: point(figure.atoms[b]), radius: 0.09, color: "#9aa3ad", fromCap: 1, toCap: 1 });
    }
    for (let i = 0; i < 8; i++) {
      for (const bit of [1, 2, 4]) {
        if (!(i & bit)) viewer.addCylinder({ start: point(figure.cell[i]), end: point(figure.cell[i | bit]), radius: 0.025, color: edge });
      }
    }
    viewer.render();
  }

  function stop() {
    if (!live) return;
    const { box, still, stage } = live;
    stage.remove();
    box.prepend(still);
    box.classList.remove("live");
    live.turn.hidden = false;
    live.color.hidden = true;
    live = null;
  }

  function start(box, turn, color) {
    stop();
    const figure = JSON.parse(document.getElementById(box.dataset.atoms).textContent);
    const still = box.querySelector("svg.crystal");
    const stage = document.createElement("div");
    stage.className = "stage";
    stage.tabIndex = 0;
    stage.setAttribute("role", "application");
    stage.setAttribute("aria-label", `Structure of ${box.dataset.name}: drag, or use the arrow keys, to turn it`);
    still.remove();
    box.prepend(stage);
    box.classList.add("live");
    const viewer = $3Dmol.createViewer(stage, { antialias: true, orthographic: true });
    const model = viewer.addModel();
    model.addAtoms(figure.atoms.map((a, index) => ({ elem: a[0], x: a[2], y: a[3], z: a[4], index, serial: index, bonds: [], bondOrder: [], properties: {} })));
    live = { box, still, stage, viewer, figure, turn, color, byShare: false };
    paint(live);
    viewer.zoomTo();
    viewer.zoom(1.6);
    viewer.render();
    turn.hidden = true;
    color.hidden = !figure.shares.length;
    color.setAttribute("aria-pressed", "false");
    const turns = { ArrowLeft: [-10, "y"], ArrowRight: [10, "y"], ArrowUp: [-10, "x"], ArrowDown: [10, "x"] };
    stage.addEventListener("keydown", (event) => {
      if (!turns[event.key]) return;
      event.preventDefault();
      viewer.rotate(...turns[event.key]);
      viewer.render();
    });
    stage.focus({ preventScroll: true });
    box.viewer = viewer;
  }

  for (const box of document.querySelectorAll("[data-atoms]")) {
    const turn = document.createElement("button");
    const color = document.createElement("button");
    for (const [button, text] of [[turn, "Turn in 3D"], [color, "Colour by share"]]) {
      button.type = "button";
      button.className = "copy";
      button.textContent = text;
    }
    color.setAttribute("aria-label", `Colour by share: ${box.dataset.name}`);
    turn.setAttribute("aria-label", `Turn in 3D: ${box.dataset.name}`);
    color.hidden = true;
    turn.addEventListener("click", () => start(box, turn, color));
    box.addEventListener("click", (event) => {
      if (event.target.closest("svg.crystal")) start(box, turn, color);
    });
    color.addEventListener("click", () => {
      live.byShare = !live.byShare;
      color.setAttribute("aria-pressed", String(live.byShare));
      paint(live);
    });
    const bar = document.createElement("div");
    bar.className = "crystal-tools";
    bar.append(turn, color);
    box.append(bar);
  }
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => live && paint(live));
  addEventListener("beforeprint", stop);
})();
