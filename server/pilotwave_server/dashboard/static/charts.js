"use strict";
// Draws each [data-chart] (see charts.py) with uPlot, in the page's colours and the viewer's zone.
(() => {
  const HEIGHT = 190;
  const language = window.pilotwaveLanguage;
  const style = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  const clock = (options) => new Intl.DateTimeFormat(language, options);
  const SECONDS = clock({ hour: "2-digit", minute: "2-digit", second: "2-digit" });
  const MINUTES = clock({ hour: "2-digit", minute: "2-digit" });
  const DAYS = clock({ month: "short", day: "numeric" });
  const WHOLE = clock({ dateStyle: "medium", timeStyle: "medium" });
  const number = new Intl.NumberFormat(language, { maximumSignificantDigits: 4 });
  const written = (value, unit) => value == null ? "–" : number.format(value) + (unit === "ms" || unit === "%" ? " " + unit : "");
  const moments = (_, splits, __, ___, step) =>
    splits.map((at) => (step < 60 ? SECONDS : step < 86400 ? MINUTES : DAYS).format(at * 1000));

  // layers one upon the other: each line is the sum of its own values and those below
  const stacked = (series) => {
    const sums = new Array(series[0].values.length).fill(0);
    return series.map((layer) => layer.values.map((value, n) => (sums[n] += value || 0)));
  };

  const draw = (place) => {
    const chart = JSON.parse(place.dataset.chart);
    const isStack = chart.kind === "stack";
    const ink = () => style("--dim");
    const lines = (isStack ? stacked(chart.series) : chart.series.map((s) => s.values));
    // the tallest layer is drawn first, so that the others lie before it
    const order = isStack ? lines.map((_, n) => n).reverse() : lines.map((_, n) => n);
    const values = place.parentElement.querySelectorAll("[data-value]");
    const at = place.parentElement.querySelector(".at");
    const last = Array.from(values, (value) => value.textContent);
    const show = (plot) => {
      const n = plot.cursor.idx;
      at.textContent = n == null ? "" : WHOLE.format(chart.times[n] * 1000);
      values.forEach((value, s) => {
        value.textContent = n == null ? last[s] : written(chart.series[s].values[n], chart.unit);
      });
    };
    const axis = { stroke: ink, font: "12px system-ui, sans-serif", grid: { stroke: () => style("--line"), width: 1 }, ticks: { stroke: () => style("--line"), width: 1 } };
    const made = new uPlot({
      width: Math.max(120, place.clientWidth),
      height: HEIGHT,
      padding: [10, 28, 0, 0],
      legend: { show: false },
      cursor: { y: false, drag: { x: false, y: false }, points: { show: !isStack } },
      scales: { x: { time: true }, y: { range: (_, low, high) => [Math.min(0, low), high > 0 ? high * 1.08 : 1] } },
      axes: [
        { ...axis, values: moments, space: 80 },
        { ...axis, size: 56, values: (_, splits) => splits.map((v) => Number.isInteger(v) || chart.unit !== "devices" ? number.format(v) + (chart.unit === "%" ? " %" : "") : "") },
      ],
      series: [{}, ...order.map((n) => {
        const { tone, dashed } = chart.series[n];
        const colour = () => style(`--s${tone}`);
        return { stroke: colour, width: 2, spanGaps: true, dash: dashed ? [5, 4] : undefined,
          fill: isStack ? colour : undefined, points: { show: !isStack && chart.times.length < 40, size: 4 } };
      })],
      hooks: { setCursor: [show] },
    }, [chart.times, ...order.map((n) => lines[n])], place);
    place.addEventListener("keydown", (event) => {
      const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
      if (!step) return;
      event.preventDefault();
      const from = made.cursor.idx ?? (step > 0 ? -1 : chart.times.length);
      const n = Math.min(Math.max(from + step, 0), chart.times.length - 1);
      made.setCursor({ left: made.valToPos(chart.times[n], "x"), top: 1 });
    });
    place.addEventListener("blur", () => made.setCursor({ left: -10, top: -10 }));
    new ResizeObserver(() => {
      if (place.clientWidth && place.clientWidth !== made.width) made.setSize({ width: place.clientWidth, height: HEIGHT });
    }).observe(place);
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => { if (place.isConnected) made.redraw(); });
  };

  const drawAll = (root) => {
    for (const place of root.querySelectorAll("[data-chart]")) if (!place.firstChild) draw(place);
  };
  drawAll(document);
  document.addEventListener("htmx:afterSettle", (event) => drawAll(event.target));
})();
