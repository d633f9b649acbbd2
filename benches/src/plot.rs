use crate::{BoxError, Row, Work};
use plotters::prelude::*;
use std::path::{Path, PathBuf};

const FLOOR: RGBColor = RGBColor(170, 170, 170);
const OURS: RGBColor = RGBColor(38, 110, 168);
/// Pixels that the title needs.
const NARROWEST: u32 = 600;

/// Draws the drains of one store, floor and outbox side by side, into `folder`. Answers the file; none without a drain.
///
/// # Errors
/// If it cannot be written.
pub fn plot(rows: &[Row], folder: &Path) -> Result<Option<PathBuf>, BoxError> {
    let drains: Vec<&Row> =
        rows.iter().filter(|row| matches!(row.work, Work::Drain | Work::Publish)).collect();
    let Some(first) = drains.first() else { return Ok(None) };
    std::fs::create_dir_all(folder)?;
    let name = if first.work == Work::Publish { &*first.transport } else { first.storage };
    let path = folder.join(format!("{name}.svg"));
    let count = u32::try_from(drains.len())?;
    let highest = drains.iter().map(|row| row.floor_per_s.max(row.ours_per_s)).max().unwrap_or(1);

    let area = SVGBackend::new(&path, ((180 + 70 * count).max(NARROWEST), 420)).into_drawing_area();
    area.fill(&WHITE)?;
    let title = format!("{name}: messages a second, {} (grey) and Pillarbox", first.floor);
    let mut chart = ChartBuilder::on(&area)
        .caption(title, ("sans-serif", 16))
        .margin(8)
        .x_label_area_size(46)
        .y_label_area_size(80)
        .build_cartesian_2d(-0.5..f64::from(count) - 0.5, 0..highest + highest / 10)?;
    // Under the middle of its two bars.
    let label = |place: &f64| {
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a place in the list")]
        let row = drains.get(*place as usize).filter(|_| *place >= 0.0 && place.fract() == 0.0);
        row.map_or_else(String::new, |row| labelled(row))
    };
    let mut mesh = chart.configure_mesh();
    mesh.disable_x_mesh()
        .x_labels(drains.len() + 1)
        .x_label_formatter(&label)
        .label_style(("sans-serif", 10));
    mesh.draw()?;
    for (colour, offset) in [(FLOOR, -0.4), (OURS, 0.0)] {
        chart.draw_series(drains.iter().zip(0_u32..).map(|(row, place)| {
            let rate = if colour == FLOOR { row.floor_per_s } else { row.ours_per_s };
            let left = f64::from(place) + offset;
            Rectangle::new([(left, 0), (left + 0.4, rate)], colour.filled())
        }))?;
    }
    area.present()?;
    drop(chart);
    drop(area);
    Ok(Some(path))
}

fn labelled(row: &Row) -> String {
    let failing = match row.failing_percent {
        0 => String::new(),
        percent => format!(" {percent}%"),
    };
    format!("{} x{}{failing}", row.case, row.relays)
}
