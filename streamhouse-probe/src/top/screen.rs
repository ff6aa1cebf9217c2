//! The live view on a terminal.

use std::time::Duration;

use ratatui::DefaultTerminal;
use ratatui::Frame;
use ratatui::crossterm::event::{self, Event, KeyCode, KeyEventKind, KeyModifiers};
use ratatui::layout::{Alignment, Constraint, Layout, Rect};
use ratatui::style::{Color, Style, Stylize};
use ratatui::text::{Line, Span, Text};
use ratatui::widgets::{Cell, Paragraph, Row, Table, TableState};

use super::view::{Activity, Group, HEADINGS, NUMBERS, View, WriteTime, duration};

/// Cells of the bar that shows where a write's time goes.
const BAR: usize = 40;
/// The parts of that time, and their colours.
const PARTS: [(&str, Color); 3] =
    [("waiting", Color::DarkGray), ("object store", Color::Blue), ("commit", Color::Magenta)];

/// A terminal, given back when dropped.
pub(super) struct Screen {
    terminal: DefaultTerminal,
    shown: Shown,
}

/// What is on the screen.
#[derive(Debug, Default)]
struct Shown {
    address: String,
    view: View,
    problem: Option<String>,
    paused: bool,
    rows: TableState,
}

/// What the user wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wish {
    End,
    Nothing,
}

impl Wish {
    pub(super) fn is_end(self) -> bool {
        self == Wish::End
    }
}

impl Screen {
    pub(super) fn new(address: String) -> anyhow::Result<Screen> {
        let shown = Shown { address, ..Shown::default() };
        let mut screen = Screen { terminal: ratatui::try_init()?, shown };
        screen.draw()?;
        Ok(screen)
    }

    pub(super) fn show(&mut self, view: View) -> anyhow::Result<()> {
        self.shown.problem = None;
        if !self.shown.paused {
            self.shown.view = view;
        }
        self.draw()
    }

    pub(super) fn complain(&mut self, error: &str) -> anyhow::Result<()> {
        self.shown.problem = Some(error.to_owned());
        self.draw()
    }

    /// Follows keys and changes of size for so long.
    pub(super) fn attend(&mut self, time: Duration) -> anyhow::Result<Wish> {
        if !event::poll(time)? {
            return Ok(Wish::Nothing);
        }
        let wish = match event::read()? {
            Event::Key(key) if key.kind == KeyEventKind::Press => self.shown.press(key.code, key.modifiers),
            _ => Wish::Nothing,
        };
        self.draw()?;
        Ok(wish)
    }

    fn draw(&mut self) -> anyhow::Result<()> {
        self.terminal.draw(|frame| self.shown.draw(frame))?;
        Ok(())
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        ratatui::restore();
    }
}

impl Shown {
    fn press(&mut self, key: KeyCode, modifiers: KeyModifiers) -> Wish {
        match key {
            KeyCode::Char('q') | KeyCode::Esc => return Wish::End,
            KeyCode::Char('c') if modifiers.contains(KeyModifiers::CONTROL) => return Wish::End,
            KeyCode::Char(' ') => self.paused = !self.paused,
            KeyCode::Down | KeyCode::Char('j') => self.rows.select_next(),
            KeyCode::Up | KeyCode::Char('k') => self.rows.select_previous(),
            KeyCode::PageDown => self.rows.scroll_down_by(20),
            KeyCode::PageUp => self.rows.scroll_up_by(20),
            KeyCode::Home => self.rows.select_first(),
            KeyCode::End => self.rows.select_last(),
            _ => {}
        }
        Wish::Nothing
    }

    fn draw(&mut self, frame: &mut Frame<'_>) {
        let room = |lines: usize| if lines == 0 { 0 } else { (lines + 2).min(10) as u16 };
        let areas = Layout::vertical([
            Constraint::Length(2),
            Constraint::Min(3),
            Constraint::Max(room(self.view.writes.len())),
            Constraint::Max(room(self.view.groups.len())),
            Constraint::Length(1),
        ]);
        let [head, activities, writes, groups, foot] = areas.areas(frame.area());
        frame.render_widget(self.head(), head);
        self.draw_activities(frame, activities);
        frame.render_widget(Text::from_iter(write_lines(&self.view.writes)), writes);
        frame.render_widget(Text::from_iter(group_lines(&self.view.groups)), groups);
        frame.render_widget(Line::from("q quit   space pause   up/down scroll").dim(), foot);
    }

    fn head(&self) -> Paragraph<'_> {
        let View { seconds, processes, sites_refused, .. } = &self.view;
        let paused = if self.paused { "   paused" } else { "" };
        let mut line = vec![
            Span::from("StreamHouse").bold(),
            Span::from(format!(
                "   {}   {processes:.0} processes   last {seconds:.1} s{paused}",
                self.address
            )),
        ];
        if *sites_refused > 0.0 {
            let refused = format!("   {sites_refused:.0} sites refused: see `streamhouse-probe list`");
            line.push(Span::from(refused).red());
        }
        if let Some(problem) = &self.problem {
            line = vec![Span::from(problem.as_str()).red()];
        }
        Paragraph::new(Line::from(line))
    }

    fn draw_activities(&mut self, frame: &mut Frame<'_>, area: Rect) {
        if self.view.activities.is_empty() {
            frame.render_widget(Line::from("nothing is sent, written or polled yet").dim(), area);
            return;
        }
        let aligned = |(column, cell): (usize, String)| {
            let alignment = if column < NUMBERS { Alignment::Left } else { Alignment::Right };
            Cell::from(Text::from(cell).alignment(alignment))
        };
        let row = |cells: [String; HEADINGS.len()]| Row::new(cells.into_iter().enumerate().map(aligned));
        let failing = |activity: &Activity| {
            let style = if activity.errors_per_second > 0.0 { Style::new().red() } else { Style::new() };
            row(activity.cells()).style(style)
        };
        let widths = [
            Constraint::Length(5),
            Constraint::Fill(2),
            Constraint::Fill(3),
            Constraint::Length(11),
            Constraint::Length(9),
            Constraint::Length(8),
            Constraint::Length(8),
            Constraint::Length(8),
            Constraint::Length(8),
        ];
        let table = Table::new(self.view.activities.iter().map(failing), widths)
            .header(row(HEADINGS.map(str::to_owned)).style(Style::new().bold()))
            .row_highlight_style(Style::new().reversed());
        frame.render_stateful_widget(table, area, &mut self.rows);
    }
}

fn write_lines(writes: &[WriteTime]) -> Vec<Line<'static>> {
    if writes.is_empty() {
        return Vec::new();
    }
    let mut heading = vec![Span::from("where a batch's time goes: ").bold()];
    heading.extend(PARTS.map(|(name, colour)| Span::from(format!("{name}  ")).fg(colour)));
    let lines = writes.iter().map(|write| {
        let parts = [write.waiting_seconds, write.object_store_seconds, write.commit_seconds];
        let mut spans = vec![Span::from(format!(
            "{:<24.24}{:>9}  ",
            write.instance_id,
            duration(Some(write.mean_seconds))
        ))];
        let lengths = bar(parts);
        spans.extend(
            PARTS.iter().zip(lengths).map(|((_, colour), length)| Span::from("█".repeat(length)).fg(*colour)),
        );
        let numbers = PARTS
            .iter()
            .zip(parts)
            .map(|((_, colour), part)| Span::from(format!("  {}", duration(Some(part)))).fg(*colour));
        spans.extend(numbers);
        Line::from(spans)
    });
    [Line::from(""), Line::from(heading)].into_iter().chain(lines).collect()
}

/// How long each part of a bar is.
fn bar(parts: [f64; 3]) -> [usize; 3] {
    let whole: f64 = parts.iter().sum();
    let end = |upto: usize| match whole > 0.0 {
        true => (parts[..upto].iter().sum::<f64>() / whole * BAR as f64).round() as usize,
        false => 0,
    };
    [end(1), end(2) - end(1), end(3) - end(2)]
}

fn group_lines(groups: &[Group]) -> Vec<Line<'static>> {
    if groups.is_empty() {
        return Vec::new();
    }
    let heading = format!("{:<24}{:<24}{:>14}{:>12}", "group", "topic", "lag records", "lag time");
    let line = |group: &Group| {
        let lag = duration(Some(group.lag_seconds));
        Line::from(format!(
            "{:<24.24}{:<24.24}{:>14.0}{lag:>12}",
            group.group, group.topic, group.lag_records
        ))
    };
    [Line::from(""), Line::from(heading).bold()].into_iter().chain(groups.iter().map(line)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::top::view::Quantiles;
    use ratatui::Terminal;
    use ratatui::backend::TestBackend;

    fn shown() -> Shown {
        let activity = |number: usize| Activity {
            activity: "write",
            topic: "orders".to_owned(),
            instance_id: format!("agent-{number}"),
            group: None,
            records_per_second: 1234.0,
            bytes_per_second: 5e6,
            errors_per_second: 0.0,
            durations: Quantiles { p99_seconds: Some(0.012), ..Quantiles::default() },
        };
        let write = WriteTime {
            instance_id: "agent-0".to_owned(),
            batches_per_second: 10.0,
            mean_seconds: 0.010,
            waiting_seconds: 0.005,
            object_store_seconds: 0.003,
            commit_seconds: 0.002,
        };
        let group = Group {
            group: "billing".to_owned(),
            topic: "orders".to_owned(),
            lag_records: 42.0,
            lag_seconds: 1.5,
        };
        let view = View {
            seconds: 1.0,
            activities: (0..100).map(activity).collect(),
            writes: vec![write],
            groups: vec![group],
            processes: 3.0,
            sites_refused: 0.0,
        };
        Shown { address: "http://127.0.0.1:9465".to_owned(), view, ..Shown::default() }
    }

    fn drawn(shown: &mut Shown, (width, height): (u16, u16)) -> String {
        let mut terminal = Terminal::new(TestBackend::new(width, height)).expect("in memory");
        terminal.draw(|frame| shown.draw(frame)).expect("in memory");
        terminal.backend().to_string()
    }

    #[test]
    fn everything_is_on_a_screen() {
        let screen = drawn(&mut shown(), (120, 30));
        for part in
            ["3 processes", "agent-0", "1234", "5.00", "12.0 ms", "10.0 ms", "billing", "42", "1.50 s"]
        {
            assert!(screen.contains(part), "{part} is not in\n{screen}");
        }
    }

    #[test]
    fn keys_scroll_pause_and_end() {
        let mut shown = shown();
        assert!(!drawn(&mut shown, (120, 30)).contains("agent-99"));
        assert_eq!(shown.press(KeyCode::End, KeyModifiers::NONE), Wish::Nothing);
        assert!(drawn(&mut shown, (120, 30)).contains("agent-99"));
        shown.press(KeyCode::Char(' '), KeyModifiers::NONE);
        assert!(drawn(&mut shown, (120, 30)).contains("paused"));
        assert_eq!(shown.press(KeyCode::Char('q'), KeyModifiers::NONE), Wish::End);
        assert_eq!(shown.press(KeyCode::Char('c'), KeyModifiers::CONTROL), Wish::End);
        assert_eq!(shown.press(KeyCode::Char('c'), KeyModifiers::NONE), Wish::Nothing);
    }

    #[test]
    fn any_size_can_be_drawn() {
        for size in [(1, 1), (10, 3), (40, 8), (300, 100)] {
            drawn(&mut shown(), size);
            drawn(&mut Shown::default(), size);
        }
    }

    #[test]
    fn a_bar_is_as_long_as_its_parts() {
        assert_eq!(bar([0.5, 0.25, 0.25]), [20, 10, 10]);
        assert_eq!(bar([1.0, 1.0, 1.0]).iter().sum::<usize>(), BAR);
        assert_eq!(bar([0.0; 3]), [0; 3]);
    }
}
