// Round numbers for axes.

export function niceTicks(low, high, count) {
  if (!(high > low)) [low, high] = [low - 1, high + 1];
  const rough = (high - low) / count;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((factor) => factor * power).find((each) => each >= rough);
  const first = Math.floor(low / step) * step;
  const ticks = [];
  for (let index = 0; first + index * step < high + step; index += 1) ticks.push(first + index * step);
  return { ticks, digits: Math.max(0, -Math.floor(Math.log10(step) + 1e-9)) };
}

const HOUR = 3600;
const DAY = 24 * HOUR;
// On a phone there is room for three labels. Each range has a step that gives at least two.
const STEPS = [1, 2, 3, 6, 8, 12, 24, 48, 72, 168, 240].map((hours) => hours * HOUR);

// Moments in local time at which a label stands, for a range in seconds since 1970.
export function timeTicks(from, to, most) {
  const span = to - from;
  const step = STEPS.find((each) => span / each <= most) ?? Math.ceil(span / most / DAY) * DAY;
  const moment = new Date(from * 1000);
  moment.setHours(0, 0, 0, 0);
  const ticks = [];
  while (moment.getTime() / 1000 <= to) {
    const seconds = moment.getTime() / 1000;
    if (seconds >= from) ticks.push(seconds);
    // By the calendar, so that labels stay at full hours when the clocks change.
    if (step >= DAY) moment.setDate(moment.getDate() + step / DAY);
    else moment.setHours(moment.getHours() + step / HOUR);
  }
  return { ticks, days: step >= DAY };
}

export function timeLabel(seconds, days) {
  const moment = new Date(seconds * 1000);
  if (days || (moment.getHours() === 0 && moment.getMinutes() === 0)) {
    return moment.toLocaleDateString([], { day: "numeric", month: "short" });
  }
  return moment.toLocaleTimeString([], { hour: "2-digit", minute: "2-digit" });
}
