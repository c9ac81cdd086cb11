//! The few functions of numpy and torch that schedules are made with, rounding where they round.

/// `numpy.linspace(start, stop, points)`.
pub(super) fn linspace(start: f64, stop: f64, points: usize) -> Vec<f64> {
    let intervals = points.saturating_sub(1);
    let step = if intervals == 0 {
        0.0
    } else {
        (stop - start) / intervals as f64
    };
    let mut line: Vec<f64> = (0..points).map(|i| start + i as f64 * step).collect();
    if let (true, Some(last)) = (intervals > 0, line.last_mut()) {
        *last = stop;
    }
    line
}

/// `torch.linspace(start, stop, points)` in f32: each half counted from its own end, with a fused multiply-add.
pub(super) fn torch_linspace(start: f32, stop: f32, points: usize) -> Vec<f32> {
    let intervals = points.saturating_sub(1);
    let step = if intervals == 0 {
        0.0
    } else {
        (stop - start) / intervals as f32
    };
    let point = |i: usize| {
        if i < points / 2 || intervals == 0 {
            step.mul_add(i as f32, start)
        } else {
            (-step).mul_add((intervals - i) as f32, stop)
        }
    };
    (0..points).map(point).collect()
}

/// `numpy.arange(start, 0, -stride)` for positive numbers.
pub(super) fn arange_down(start: f64, stride: f64) -> Vec<f64> {
    // numpy takes the difference of the first two numbers as the step.
    let delta = (start - stride) - start;
    (0..(start / stride).ceil() as usize)
        .map(|i| start + i as f64 * delta)
        .collect()
}

/// `numpy.interp(x, range(len(values)), values)`.
pub(super) fn interpolate(x: f64, values: &[f32]) -> f64 {
    let at = |i: usize| {
        values
            .get(i)
            .or(values.last())
            .map_or(f64::NAN, |value| f64::from(*value))
    };
    let low = x.max(0.0).floor();
    let (a, b) = (at(low as usize), at(low as usize + 1));
    if a == b { a } else { (b - a) * (x - low) + a }
}
