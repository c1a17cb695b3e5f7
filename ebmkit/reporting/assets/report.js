"use strict";

// The page's state outlives its content, which is replaced while a run is watched.

const state = { range: null, whole: [0, 1], log: new Set(), smooth: 0, hidden: new Set(), grid: null, open: new Set() };
let charts = [], playing = 0;

function startCurves(data) {
  const section = document.getElementById("curves");
  if (!section) return;
  const [from, to] = section.querySelectorAll("input[type=number]");
  const steps = data.charts.flatMap((chart) => chart.lines.flatMap((line) => [line.steps[0], line.steps.at(-1)]));
  state.whole = [Math.min(...steps), Math.max(...steps)];
  const drawAll = () => {
    [from.value, to.value] = state.range ?? state.whole;
    charts.forEach((chart) => chart.draw());
  };
  const zoom = (range) => {
    state.range = range;
    drawAll();
  };
  const figures = section.querySelectorAll(".chart");
  charts = data.charts.map((chart, i) => new Chart(chart, state, figures[i], i, zoom));
  from.onchange = to.onchange = () => {
    const range = [Number(from.value), Number(to.value)];
    if (range[0] < range[1]) zoom(range);
    else drawAll();
  };
  section.querySelector("#whole").onclick = () => zoom(null);
  const smooth = section.querySelector("#smooth");
  smooth.value = state.smooth;
  smooth.oninput = () => {
    state.smooth = Number(smooth.value);
    drawAll();
  };
  section.querySelectorAll("[data-run]").forEach((button) => {
    const run = Number(button.dataset.run);
    button.setAttribute("aria-pressed", !state.hidden.has(run));
    button.onclick = () => {
      if (!state.hidden.delete(run)) state.hidden.add(run);
      button.setAttribute("aria-pressed", !state.hidden.has(run));
      drawAll();
    };
  });
  drawAll();
}

function startSamples(data) {
  const section = document.getElementById("samples");
  if (!section) return;
  const slider = section.querySelector("input"), step = section.querySelector("output"), play = section.querySelector("button");
  const steps = [...new Set(data.grids.flatMap((grid) => grid.steps))].sort((a, b) => a - b);
  slider.max = steps.length - 1;
  const show = (at) => {
    slider.value = at;
    step.textContent = `step ${shownStep(steps[at])}`;
    data.grids.forEach((grid) => {
      // Of each run the newest grid up to this step: runs may draw theirs at different steps.
      const i = grid.steps.findLastIndex((value) => value <= steps[at]), figure = section.querySelectorAll("figure")[grid.figure];
      const image = figure.querySelector("img");
      image.src = grid.pictures[Math.max(i, 0)];
      image.alt = figure.querySelector(".at").textContent = `step ${shownStep(grid.steps[Math.max(i, 0)])}`;
    });
  };
  slider.oninput = () => {
    // At the end it stays at the end, where new grids come.
    state.grid = Number(slider.value) === steps.length - 1 ? null : Number(slider.value);
    show(Number(slider.value));
  };
  const stop = () => {
    clearInterval(playing);
    playing = 0;
    play.textContent = "Play";
  };
  play.hidden = steps.length < 2;
  play.onclick = () => {
    if (playing) return stop();
    play.textContent = "Stop";
    let at = Number(slider.value) === steps.length - 1 ? 0 : Number(slider.value);
    show(at);
    playing = setInterval(() => {
      at += 1;
      show(at);
      if (at === steps.length - 1) stop();
    }, 600);
    return undefined;
  };
  show(Math.min(state.grid ?? steps.length - 1, steps.length - 1));
}

function start() {
  const data = JSON.parse(document.getElementById("data").textContent);
  startSamples(data);
  startCurves(data);
  document.querySelectorAll("details").forEach((details) => {
    details.open = state.open.has(details.id);
    details.ontoggle = () => state.open[details.open ? "add" : "delete"](details.id);
  });
}

async function watch(milliseconds) {
  let tag = null;
  for (;;) {
    await new Promise((resolve) => { setTimeout(resolve, milliseconds); });
    if (document.hidden) continue;
    try {
      const answer = await fetch(location.pathname, { cache: "no-cache" });
      if (answer.ok && answer.headers.get("ETag") !== tag && !playing) {
        const fresh = new DOMParser().parseFromString(await answer.text(), "text/html");
        document.getElementById("report").replaceWith(fresh.getElementById("report"));
        tag = answer.headers.get("ETag");
        start();
      }
      document.getElementById("live").className = "";
      document.getElementById("live").textContent = "live";
    } catch {
      document.getElementById("live").className = "off";
      document.getElementById("live").textContent = "the server does not answer any more";
    }
  }
}

start();
new ResizeObserver(() => charts.forEach((chart) => chart.draw())).observe(document.body);
if (Number(document.body.dataset.refresh)) watch(Number(document.body.dataset.refresh));
