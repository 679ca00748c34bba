//! Medians, and the table of what was measured, beside what it is compared with and its goal.

use std::fmt;

/// The middle one.
pub(crate) fn median(mut figures: Vec<f64>) -> f64 {
    figures.sort_by(f64::total_cmp);
    figures[figures.len() / 2]
}

/// For each subject the median of what is measured of it, so many times, taking turns.
pub(crate) fn in_turns<T>(
    runs: usize,
    subjects: &[T],
    mut measure: impl FnMut(&T) -> f64,
) -> Vec<f64> {
    let mut figures = vec![Vec::new(); subjects.len()];
    for _ in 0..runs {
        for (subject, figures) in subjects.iter().zip(&mut figures) {
            figures.push(measure(subject));
        }
    }
    figures.into_iter().map(median).collect()
}

/// What a figure is to be, or its ratio to another one.
#[derive(Clone, Copy)]
pub(crate) enum Goal {
    AtMost(f64),
    AtLeast(f64),
}

impl Goal {
    fn is_met_by(self, figure: f64) -> bool {
        match self {
            Self::AtMost(most) => figure <= most,
            Self::AtLeast(least) => figure >= least,
        }
    }
}

impl fmt::Display for Goal {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AtMost(figure) => write!(out, "<= {figure}"),
            Self::AtLeast(figure) => write!(out, ">= {figure}"),
        }
    }
}

/// A figure of ours.
pub(crate) struct Row {
    /// What was measured, with its unit.
    pub(crate) measure: String,
    pub(crate) ours: f64,
    /// What it is compared with.
    pub(crate) other: Option<(&'static str, f64)>,
    /// Of the ratio, if there is something to compare with, else of the figure.
    pub(crate) goal: Option<Goal>,
}

impl Row {
    pub(crate) fn new(measure: impl Into<String>, ours: f64, goal: Option<Goal>) -> Self {
        Self {
            measure: measure.into(),
            ours,
            other: None,
            goal,
        }
    }

    pub(crate) fn against(self, name: &'static str, figure: f64, goal: Option<Goal>) -> Self {
        Self {
            other: Some((name, figure)),
            goal,
            ..self
        }
    }

    fn ratio(&self) -> Option<f64> {
        self.other.map(|(_, other)| self.ours / other)
    }
}

impl fmt::Display for Row {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (name, other) = self.other.unzip();
        let goal = self.goal.map(|goal| {
            let is_met = goal.is_met_by(self.ratio().unwrap_or(self.ours));
            format!("{goal}{}", if is_met { "" } else { ", **missed**" })
        });
        write!(
            out,
            "| {} | {} | {} | {} | {} | {} |",
            self.measure,
            rounded(self.ours),
            name.unwrap_or_default(),
            other.map(rounded).unwrap_or_default(),
            self.ratio().map(rounded).unwrap_or_default(),
            goal.unwrap_or_default(),
        )
    }
}

/// The head of a table of rows.
pub(crate) const HEAD: &str = "\
    | measure | ours | against | theirs | ratio | goal |\n|---|---|---|---|---|---|";

/// With about three digits that count.
pub(crate) fn rounded(figure: f64) -> String {
    let digits = match figure.abs() {
        100.0.. => 0,
        10.0.. => 1,
        1.0.. => 2,
        _ => 3,
    };
    format!("{figure:.digits$}")
}
