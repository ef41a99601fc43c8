//! The few statistics that the report uses. Nothing is left out as an outlier.

/// The value that `share` (0 to 1) of the values do not exceed, by nearest rank. With fewer than 100 values the 99th
/// percentile is the largest.
pub fn percentile(values: &[f64], share: f64) -> Option<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let rank = (share * sorted.len() as f64).ceil() as usize;
    sorted.get(rank.saturating_sub(1)).copied()
}

pub fn median(values: &[f64]) -> Option<f64> {
    percentile(values, 0.5)
}

/// Least squares: offset and slope of y = offset + slope · x. Two different x at least.
pub fn line(points: &[(f64, f64)]) -> Option<(f64, f64)> {
    let count = points.len() as f64;
    let mean_x = points.iter().map(|(x, _)| x).sum::<f64>() / count;
    let mean_y = points.iter().map(|(_, y)| y).sum::<f64>() / count;
    let spread = points.iter().map(|(x, _)| (x - mean_x).powi(2)).sum::<f64>();
    let common = points.iter().map(|(x, y)| (x - mean_x) * (y - mean_y)).sum::<f64>();
    let slope = common / spread;
    (points.len() > 1 && spread > 0.0).then_some((mean_y - slope * mean_x, slope))
}

/// The exponent k of y = a · x^k, fitted as a line through the logarithms. Of points with y > 0 only.
pub fn exponent(points: &[(f64, f64)]) -> Option<f64> {
    let logarithms: Vec<(f64, f64)> =
        points.iter().filter(|(x, y)| *x > 0.0 && *y > 0.0).map(|(x, y)| (x.ln(), y.ln())).collect();
    line(&logarithms).map(|(_, slope)| slope)
}
