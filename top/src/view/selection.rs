//! Which part of all that is known the user looks at.

use super::detail::Scroll;
use super::overlay::Overlay;

/// What keys and clicks have chosen. The row of the table is the [`Table`](super::table::Table)'s.
#[derive(Debug, Default)]
pub(super) struct Selection {
    /// 0 is all servers together where there are several; otherwise the first.
    pub(super) tab: usize,
    /// The selected server in the list of all.
    pub(super) server: usize,
    /// The selected worker is looked at closely.
    pub(super) detail: bool,
    /// How far the detail pane is scrolled.
    pub(super) scroll: Scroll,
    /// What lies over the table.
    pub(super) overlay: Option<Overlay>,
}

impl Selection {
    /// Whether the detail of a worker is what is read, and scrolled.
    pub(super) fn reads_detail(&self) -> bool {
        self.detail && self.overlay.is_none()
    }

    /// Lines of a page of the detail.
    pub(super) fn scroll_page(&self) -> isize {
        self.scroll.page.saturating_sub(1).max(1) as isize
    }

    /// Scrolls the detail; drawing keeps it within what there is to read.
    pub(super) fn scroll_detail(&mut self, lines: isize) {
        self.scroll.first = self.scroll.first.saturating_add_signed(lines);
    }
}
