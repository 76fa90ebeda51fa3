//! How it looks: a line of tabs and the state of the connection, the view, a line of keys.
//!
//! Everything shrinks: columns and charts that find no room are left out, and the smallest terminal
//! shows the beginning of each line. Without colors (NO_COLOR) states are told by words and weight, in
//! a terminal without UTF-8 bars are made of ASCII. Text from the controller is cut and stripped of
//! control characters by ratatui's buffer.

mod overview;
mod tables;
#[cfg(test)]
pub(super) mod tests;

use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style};
use ratatui::symbols::bar;
use ratatui::text::{Line, Span};

use super::model::{Link, Model, Sort, View};

/// Lines around the rows of a table: tabs, what is filtered, heading, keys.
pub(super) const AROUND_TABLES: usize = 4;

/// What the terminal can show.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Look {
    colors: bool,
    unicode: bool,
    /// Whether keys do anything.
    keys: bool,
}

/// What a state means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Tone {
    Good,
    Warn,
    Bad,
    Busy,
    Soft,
    Strong,
}

const ASCII: bar::Set<'static> = bar::Set {
    full: "#",
    seven_eighths: "#",
    three_quarters: "*",
    five_eighths: "+",
    half: "+",
    three_eighths: "-",
    one_quarter: "-",
    one_eighth: ".",
    empty: " ",
};

impl Look {
    /// As the environment says: https://no-color.org, and the locale's encoding.
    pub(super) fn of_environment() -> Self {
        let set = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
        let locale = ["LC_ALL", "LC_CTYPE", "LANG"].into_iter().find_map(set);
        Self {
            colors: set("NO_COLOR").is_none() && set("TERM").is_none_or(|term| term != "dumb"),
            unicode: is_utf8(locale.as_deref()),
            keys: true,
        }
    }

    /// For text that goes anywhere and is looked at later.
    pub(super) fn plain() -> Self {
        Self {
            colors: false,
            keys: false,
            ..Self::of_environment()
        }
    }

    fn style(self, tone: Tone) -> Style {
        let style = Style::new();
        if self.colors {
            return match tone {
                Tone::Good => style.fg(Color::Green),
                Tone::Warn => style.fg(Color::Yellow),
                Tone::Bad => style.fg(Color::Red).add_modifier(Modifier::BOLD),
                Tone::Busy => style.fg(Color::Cyan),
                Tone::Soft => style.fg(Color::DarkGray),
                Tone::Strong => style.add_modifier(Modifier::BOLD),
            };
        }
        match tone {
            Tone::Bad | Tone::Strong => style.add_modifier(Modifier::BOLD),
            Tone::Soft => style.add_modifier(Modifier::DIM),
            Tone::Good | Tone::Warn | Tone::Busy => style,
        }
    }

    fn span<'t>(self, tone: Tone, text: impl Into<std::borrow::Cow<'t, str>>) -> Span<'t> {
        Span::styled(text, self.style(tone))
    }

    fn bars(self) -> bar::Set<'static> {
        if self.unicode {
            bar::NINE_LEVELS
        } else {
            ASCII
        }
    }

    /// A bar `part` of `width` long.
    fn bar(self, part: f64, width: usize) -> String {
        let bars = self.bars();
        let eighths = (part.clamp(0.0, 1.0) * width as f64 * 8.0).round() as usize;
        let mut text = if self.unicode { "█" } else { bars.full }.repeat(eighths / 8);
        // Blocks that grow to the right; whoever has some gets to see some.
        let rest = ["", "▏", "▎", "▍", "▌", "▋", "▊", "▉"][eighths % 8];
        match (self.unicode, eighths) {
            (true, 0) if part > 0.0 => text.push('▏'),
            (true, _) => text.push_str(rest),
            (false, 1..8) => text.push('-'),
            (false, 0) if part > 0.0 => text.push('-'),
            (false, _) => {}
        }
        text
    }
}

fn is_utf8(locale: Option<&str>) -> bool {
    // Nothing said: containers say nothing, and their terminals are elsewhere.
    locale.is_none_or(|locale| {
        let locale = locale.to_ascii_lowercase();
        locale.contains("utf-8") || locale.contains("utf8")
    })
}

/// One frame. Tells the model how many rows there is room for.
pub(super) fn draw(frame: &mut Frame, model: &mut Model, look: Look) {
    let [head, body, foot] = Layout::vertical([
        Constraint::Length(1),
        Constraint::Min(0),
        Constraint::Length(1),
    ])
    .areas(frame.area());
    model.make_room(usize::from(frame.area().height).saturating_sub(AROUND_TABLES));
    frame.render_widget(tabs(model, look, head.width), head);
    match model.view {
        View::Overview => overview::draw(frame, body, model, look),
        View::Fleet => tables::fleet(frame, body, model, look),
        View::Sync => tables::sync(frame, body, model, look),
    }
    if look.keys {
        frame.render_widget(keys(model, look), foot);
    }
}

fn tabs<'m>(model: &'m Model, look: Look, width: u16) -> Line<'m> {
    // What is wrong is said before what can be chosen: it may be cut off at the right.
    let mut spans = vec![look.span(Tone::Strong, "kvatlas ")];
    match &model.link {
        Link::Lost(reason) => {
            spans.push(look.span(Tone::Bad, "NO CONTROLLER "));
            spans.push(Span::raw(format!("{reason}; trying again")));
            return Line::from(spans);
        }
        Link::Connecting => spans.push(look.span(Tone::Warn, "connecting ")),
        Link::Live => {}
    }
    for (n, view) in View::ALL.into_iter().enumerate() {
        let text = format!(" {} {} ", n + 1, view.title());
        let style = Style::new();
        let style = match view == model.view {
            true => style.add_modifier(Modifier::REVERSED | Modifier::BOLD),
            false => style,
        };
        spans.push(Span::styled(text, style));
    }
    let taken: usize = spans.iter().map(Span::width).sum();
    let url = Span::styled(model.url.as_str(), look.style(Tone::Soft));
    if let Some(gap) = usize::from(width).checked_sub(taken + url.width())
        && gap > 0
    {
        spans.push(Span::raw(" ".repeat(gap)));
        spans.push(url);
    }
    Line::from(spans)
}

fn keys<'m>(model: &'m Model, look: Look) -> Line<'m> {
    if model.typing {
        return Line::from(vec![
            look.span(Tone::Strong, format!("/{}", model.filter)),
            Span::styled(" ", Style::new().add_modifier(Modifier::REVERSED)),
            look.span(Tone::Soft, "  enter: keep  esc: all"),
        ]);
    }
    let text = match model.view {
        View::Overview => "q quit  tab views  / filter",
        View::Fleet => "q quit  tab views  / filter  s sort  r turn  up down pgup pgdn",
        View::Sync => "q quit  tab views  up down pgup pgdn",
    };
    Line::from(look.span(Tone::Soft, text))
}

/// What the table shows, in a line above it.
fn about(model: &Model, shown: usize, matching: usize, total: usize) -> String {
    let from = (model.scroll + 1).min(matching);
    let to = (model.scroll + shown).min(matching);
    let mut text = format!("{from} to {to} of {}", count(matching as f64));
    if matching != total {
        text.push_str(&format!(" ({} in all)", count(total as f64)));
    }
    if model.view == View::Fleet {
        let sort = match model.sort {
            Sort::Worker => "worker",
            Sort::Keys => "keys",
            Sort::Seen => "last sign of life",
            Sort::Gaps => "gaps",
        };
        let turned = if model.descending { ", most first" } else { "" };
        text.push_str(&format!(", by {sort}{turned}"));
        if !model.filter.is_empty() {
            text.push_str(&format!(", with {:?}", model.filter));
        }
    }
    text
}

/// Centered text where there is nothing else to show.
fn nothing(frame: &mut Frame, area: Rect, lines: &[&str]) {
    let top = area.height.saturating_sub(lines.len() as u16) / 2;
    for (n, line) in (0..).zip(lines) {
        let row = Rect {
            y: area.y + top + n,
            height: 1,
            ..area
        };
        if row.y < area.bottom() {
            frame.render_widget(Line::from(*line).centered(), row);
        }
    }
}

/// A number in at most six characters.
fn count(value: f64) -> String {
    let (scaled, unit) = match value {
        v if v < 10_000.0 => {
            let text = format!("{v:.1}");
            return text.strip_suffix(".0").map_or(text.clone(), str::to_owned);
        }
        v if v < 999_950.0 => (v / 1e3, "k"),
        v if v < 999_950_000.0 => (v / 1e6, "M"),
        v => (v / 1e9, "G"),
    };
    format!("{scaled:.1}{unit}")
}

fn bytes(value: u64) -> String {
    let value = value as f64;
    match value {
        v if v < 1024.0 => format!("{v:.0} B"),
        v if v < 1024.0 * 1024.0 => format!("{:.0} KiB", v / 1024.0),
        v if v < 1024.0 * 1024.0 * 1024.0 => format!("{:.1} MiB", v / 1024.0 / 1024.0),
        v => format!("{:.2} GiB", v / 1024.0 / 1024.0 / 1024.0),
    }
}

fn seconds(value: f64) -> String {
    match value {
        v if v < 1e-3 => format!("{:.0} us", v * 1e6),
        v if v < 1.0 => format!("{:.0} ms", v * 1e3),
        v if v < 60.0 => format!("{v:.0} s"),
        v if v < 3600.0 => format!("{:.0} min", v / 60.0),
        v if v < 48.0 * 3600.0 => format!("{:.0} h", v / 3600.0),
        v => format!("{:.0} d", v / 86_400.0),
    }
}
