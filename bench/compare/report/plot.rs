//! One SVG a row: medians over N, both axes logarithmic.

use super::columns;
use crate::results::Row;
use crate::row::Bench;
use crate::statistics::median;
use plotters::prelude::*;
use std::path::Path;

/// A row without a value above zero has no plot.
///
/// # Errors
/// When the file cannot be written.
pub fn draw(bench: &Bench<'_>, row: &Row, file: &Path) -> Result<(), Box<dyn std::error::Error>> {
    let lines: Vec<(&'static str, Vec<(f64, f64)>)> = columns(bench, row.name)
        .into_iter()
        .map(|peer| {
            let points = bench.results.sizes(row.name).into_iter().filter_map(|size| {
                let value = median(bench.results.values(row.name, size, peer))?;
                (value > 0.0).then_some((size as f64, value))
            });
            (peer, points.collect())
        })
        .collect();
    let all = || lines.iter().flat_map(|(_, points)| points.iter().copied());
    let (left, right) = all().fold((f64::MAX, 0.0_f64), |(low, high), (x, _)| (low.min(x), high.max(x)));
    let (bottom, top) = all().fold((f64::MAX, 0.0_f64), |(low, high), (_, y)| (low.min(y), high.max(y)));
    if top <= 0.0 {
        return Ok(());
    }
    // The legend stands beside the lines, where no N is.
    let root = SVGBackend::new(file, (760, 460)).into_drawing_area();
    root.fill(&WHITE)?;
    let mut chart = ChartBuilder::on(&root)
        .caption(row.title, ("sans-serif", 18))
        .margin(12)
        .x_label_area_size(36)
        .y_label_area_size(64)
        .build_cartesian_2d((left * 0.9..right * 12.0).log_scale(), (bottom * 0.7..top * 1.4).log_scale())?;
    chart.configure_mesh().x_desc("N").y_desc(row.unit).draw()?;
    for (index, (peer, points)) in lines.into_iter().enumerate() {
        let style = Palette99::pick(index).to_rgba().stroke_width(2);
        chart
            .draw_series(LineSeries::new(points, style).point_size(3))?
            .label(peer)
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 16, y)], style));
    }
    chart
        .configure_series_labels()
        .background_style(WHITE.mix(0.8))
        .position(SeriesLabelPosition::MiddleRight)
        .draw()?;
    root.present()?;
    Ok(())
}
