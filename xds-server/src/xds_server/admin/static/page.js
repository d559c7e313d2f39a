"use strict";
// Makes a page follow the state of the server. Without it, everything is there, as it was when the page was loaded.

const live = document.getElementById("live");
const connection = document.getElementById("connection");
const container = document.getElementById("chart");
const history = [[], [], []]; // seconds since 1970, requests a second, failed a second
const MAX_POINTS = 600;
const MIN_SECONDS = 60;
let events = null;
let chart = null;

function color(name) {
  return getComputedStyle(document.documentElement).getPropertyValue(name).trim();
}

function line(name) {
  return { stroke: color(name), width: 2, points: { show: false } };
}

function clock(seconds) {
  return new Date(seconds * 1000).toLocaleTimeString([], { hour: "2-digit", minute: "2-digit", second: "2-digit" });
}

// uPlot draws on a canvas, which knows no style sheet.
function makeChart() {
  const axis = { stroke: color("--muted"), grid: { stroke: color("--line"), width: 1 }, ticks: { show: false } };
  const options = {
    width: container.clientWidth,
    height: 160,
    legend: { show: false },
    cursor: { show: false },
    scales: {
      x: { range: (_, low, high) => [low, Math.max(high, low + MIN_SECONDS)] },
      y: { range: (_, __, high) => [0, Math.max(1, high * 1.1)] },
    },
    axes: [{ ...axis, values: (_, ticks) => ticks.map(clock) }, { ...axis, size: 50 }],
    series: [{}, line("--accent"), line("--bad")],
  };
  chart = new uPlot(options, history, container);
}

function record() {
  const now = document.getElementById("now");
  if (!container || !now) return;
  history[0].push(Date.now() / 1000);
  history[1].push(Number(now.dataset.requests));
  history[2].push(Number(now.dataset.failed));
  if (history[0].length > MAX_POINTS) history.forEach((values) => values.shift());
  if (history[0].length < 2 || !history[1].some((value) => value > 0)) return;
  container.hidden = false;
  if (chart) chart.setData(history);
  else makeChart();
}

function redraw() {
  if (!chart) return;
  chart.destroy();
  makeChart();
}

function follow() {
  events = new EventSource(live.dataset.source);
  events.onopen = () => { connection.textContent = "live"; };
  events.onmessage = (event) => {
    Idiomorph.morph(live, event.data, { morphStyle: "innerHTML", ignoreActiveValue: true });
  };
  events.onerror = () => { connection.textContent = "not live: the server does not answer, or has too many viewers"; };
}

function stop() {
  if (events) events.close();
  events = null;
}

if (live) {
  record();
  follow();
  // A page that nobody sees asks for nothing.
  document.addEventListener("visibilitychange", () => { if (document.hidden) stop(); else if (!events) follow(); });
  // A point each second, also while nothing changes.
  setInterval(() => { if (events && events.readyState === EventSource.OPEN) record(); }, 1000);
  window.addEventListener("resize", redraw);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redraw);
}
