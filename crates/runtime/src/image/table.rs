//! `stanchion image ls`: images as a table for people.

use super::{Image, Reference};
use std::fmt::Write;

/// REFERENCE, IMAGE ID, SIZE and CREATED, one row a reference, as wide as their content.
pub fn table(images: &[Image], now: stdx::Timestamp) -> String {
    let mut rows = vec![["REFERENCE", "IMAGE ID", "SIZE", "CREATED"].map(str::to_owned)];
    for image in images {
        let id = image.id.trim_start_matches("sha256:").chars().take(12).collect::<String>();
        let created = image.created.map_or_else(|| "<unknown>".to_owned(), |at| ago(at, now));
        let references = match &image.references[..] {
            [] => vec!["<none>".to_owned()],
            known => known.iter().map(|whole| familiar(whole)).collect(),
        };
        for reference in references {
            rows.push([reference, id.clone(), size(image.size), created.clone()]);
        }
    }
    let width =
        |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths = [width(0), width(1), width(2)];
    let mut table = String::new();
    for [reference, id, size, created] in &rows {
        let [first, second, third] = widths;
        writeln!(table, "{reference:first$}   {id:second$}   {size:third$}   {created}")
            .expect("writing to a String");
    }
    table
}

fn familiar(whole: &str) -> String {
    Reference::parse(whole).map_or_else(|_| whole.to_owned(), |reference| reference.familiar())
}

/// Decimal units with three digits, as container programs print them.
fn size(bytes: u64) -> String {
    let units = ["kB", "MB", "GB", "TB"];
    if bytes < 1000 {
        return format!("{bytes}B");
    }
    let mut value = bytes as f64 / 1000.0;
    let mut unit = 0;
    while value >= 999.5 && unit + 1 < units.len() {
        value /= 1000.0;
        unit += 1;
    }
    let digits = if value < 9.995 { 2 } else { usize::from(value < 99.95) };
    format!("{value:.digits$}{}", units[unit])
}

fn ago(at: stdx::Timestamp, now: stdx::Timestamp) -> String {
    let seconds = now.since(at).as_secs();
    let steps = [
        ("year", 31_536_000),
        ("month", 2_592_000),
        ("week", 604_800),
        ("day", 86_400),
        ("hour", 3600),
        ("minute", 60),
    ];
    for (unit, length) in steps {
        let count = seconds / length;
        if count > 0 {
            return format!("{count} {unit}{} ago", if count == 1 { "" } else { "s" });
        }
    }
    "just now".to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use stdx::Timestamp;

    fn check(images: &[Image], expected: &str) {
        let now = Timestamp::from_seconds(10_000_000);
        assert_eq!(table(images, now), expected.trim_start());
    }

    #[test]
    fn rows_line_up_and_names_are_the_short_ones() {
        let nginx = Image {
            id: format!("sha256:{}", "ab".repeat(32)),
            references: vec!["docker.io/library/nginx:1.9.1".into(), "localhost/a:b".into()],
            digests: Vec::new(),
            pulled: Vec::new(),
            layers: Vec::new(),
            config: super::super::ImageConfig::default(),
            size: 1_234_567,
            created: Some(Timestamp::from_seconds(10_000_000 - 90_000)),
        };
        let nameless = Image { references: Vec::new(), size: 12, created: None, ..nginx.clone() };
        check(
            &[nginx, nameless],
            "
REFERENCE       IMAGE ID       SIZE     CREATED
nginx:1.9.1     abababababab   1.23MB   1 day ago
localhost/a:b   abababababab   1.23MB   1 day ago
<none>          abababababab   12B      <unknown>
",
        );
        check(&[], "\nREFERENCE   IMAGE ID   SIZE   CREATED\n");
    }

    #[test]
    fn sizes_have_three_digits() {
        let sizes = [999, 1000, 99_940, 999_499, 999_500, 45_600_000_000].map(size);
        assert_eq!(sizes, ["999B", "1.00kB", "99.9kB", "999kB", "1.00MB", "45.6GB"]);
    }
}
