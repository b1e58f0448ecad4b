// How long ago something was. performance.now() may stand still while the computer sleeps, and Date.now() jumps when
// the clock is set. The longer of the two times counts, so that nothing looks newer than it is.

export const stamp = () => ({ steady: performance.now(), wall: Date.now() });

export const secondsSince = (moment) =>
  Math.max(performance.now() - moment.steady, Date.now() - moment.wall, 0) / 1000;
