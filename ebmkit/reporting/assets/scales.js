"use strict";

// Scales map a metric's value to [0, 1] and say where ticks stand.

function niceTicks(low, high, about) {
  const rough = (high - low) / about;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = power * [1, 2, 5, 10].find((factor) => power * factor >= rough * 0.999);
  const ticks = [];
  for (let i = Math.ceil(low / step - 1e-9); i * step <= high + step * 1e-9; i += 1) ticks.push(i * step);
  return ticks;
}

function logTicks(low, high) {
  const first = Math.ceil(Math.log10(low) - 1e-9), last = Math.floor(Math.log10(high) + 1e-9);
  if (last - first < 1) return niceTicks(low, high, 4).filter((value) => value > 0);
  const every = Math.max(1, Math.ceil((last - first) / 5));
  const ticks = [];
  for (let power = first; power <= last; power += every) ticks.push(10 ** power);
  return ticks;
}

function warped(values, log) {
  if (!log) return { of: (value) => value, ticks: (low, high) => niceTicks(low, high, 4) };
  const least = values.reduce((a, b) => Math.min(a, b), Infinity);
  if (least > 0) return { of: Math.log10, ticks: logTicks };
  // Values that are 0 or negative have no logarithm: it is taken of sizes, and goes through 0 as a straight line.
  const most = values.reduce((a, b) => Math.max(a, Math.abs(b)), 0) || 1;
  const near = most / 1000;
  return {
    of: (value) => Math.sign(value) * Math.log10(1 + Math.abs(value) / near),
    ticks: (low, high) => {
      const sizes = logTicks(near * 10, most);
      return [...sizes.map((value) => -value), 0, ...sizes].filter((value) => value >= low && value <= high);
    },
  };
}

function scale(values, log) {
  const warp = warped(values, log);
  let low = values.reduce((a, b) => Math.min(a, b), Infinity), high = values.reduce((a, b) => Math.max(a, b), -Infinity);
  if (!(low <= high)) [low, high] = log ? [0.1, 1] : [0, 1];
  if (low === high) {
    const room = Math.abs(low) / 2 || 1;
    [low, high] = log && low > 0 ? [low / 2, high * 2] : [low - room, high + room];
  }
  const from = warp.of(low), room = (warp.of(high) - from) * 0.05, span = warp.of(high) - from + 2 * room;
  return { at: (value) => (warp.of(value) - from + room) / span, ticks: warp.ticks(low, high) };
}

function shown(value) {
  if (value === null || value === undefined) return "\u2013";
  const size = Math.abs(value);
  if (size !== 0 && (size >= 1e6 || size < 1e-3)) return value.toExponential(2).replace(/\.?0+e/, "e");
  return Number(value.toPrecision(4)).toLocaleString("en", { maximumFractionDigits: 6 });
}

function shownStep(value) {
  return value.toLocaleString("en", { maximumFractionDigits: 2 });
}
