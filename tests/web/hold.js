// Holds the thread for longer than any task should: what the test of the main thread must be able to see.
const until = performance.now() + 400;
let sum = 0;
while (performance.now() < until) sum += Math.sqrt(sum + 1);
window.held = sum;
