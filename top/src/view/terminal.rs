//! The terminal as a thing that is borrowed: taken over on entry, and given back as it was whatever happens.

use std::io::{self, Write, stdout};
use std::panic;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use crossterm::cursor::{Hide, Show};
use crossterm::terminal::{
    Clear, ClearType, EnterAlternateScreen, LeaveAlternateScreen, disable_raw_mode, enable_raw_mode, size,
};
use crossterm::{execute, queue, style::Print};
use ratatui::buffer::Buffer;

use super::escape;
use super::frame::Frames;

/// Clicks only, in the form that has no limit of 223 columns. Motion is not asked for: it would wake us for nothing.
const MOUSE_ON: &str = "\x1b[?1000h\x1b[?1006h";
const MOUSE_OFF: &str = "\x1b[?1006l\x1b[?1000l";

/// Whether the terminal is ours now; a panic anywhere asks it.
static TAKEN: AtomicBool = AtomicBool::new(false);

/// The terminal while it is ours. Dropping it gives it back.
#[derive(Debug)]
pub(crate) struct Tty {
    /// A frame's bytes, kept for their room.
    bytes: Vec<u8>,
    frames: Frames,
    mouse: bool,
}

impl Tty {
    /// Takes the terminal over; `mouse` asks it for clicks.
    ///
    /// # Errors
    /// When standard output is no terminal that can be switched.
    pub(crate) fn take(mouse: bool) -> io::Result<Self> {
        give_back_on_panic();
        take(mouse)?;
        let (width, height) = size().inspect_err(|_| give_back())?;
        Ok(Self { bytes: Vec::new(), frames: Frames::new(width, height), mouse })
    }

    /// Draws one frame; only what differs from the one before is written.
    ///
    /// # Errors
    /// When the terminal is gone.
    pub(crate) fn draw(&mut self, render: impl FnOnce(&mut Buffer)) -> io::Result<()> {
        self.bytes.clear();
        let mut writer = escape::Writer::new(&mut self.bytes);
        self.frames.advance(render, |x, y, cell| writer.put(x, y, cell));
        writer.finish();
        if self.bytes.is_empty() {
            return Ok(());
        }
        // All at once: a terminal that shows half a frame flickers.
        let mut out = stdout().lock();
        out.write_all(&self.bytes)?;
        out.flush()
    }

    /// Goes on with a terminal that may have another size now, and whose contents are anyone's guess.
    ///
    /// # Errors
    /// When the terminal is gone.
    pub(crate) fn fit(&mut self) -> io::Result<()> {
        let (width, height) = size()?;
        execute!(stdout(), Clear(ClearType::All))?;
        self.frames = Frames::new(width, height);
        Ok(())
    }

    /// Takes the terminal over again after somebody else had it, and forgets what it showed.
    ///
    /// # Errors
    /// When the terminal is gone.
    pub(crate) fn retake(&mut self) -> io::Result<()> {
        take(self.mouse)?;
        self.fit()
    }

    /// Gives the terminal back for as long as `pause` runs.
    ///
    /// # Errors
    /// When the terminal is gone afterwards.
    pub(crate) fn lend(&mut self, pause: impl FnOnce()) -> io::Result<()> {
        give_back();
        pause();
        self.retake()
    }
}

impl Drop for Tty {
    fn drop(&mut self) {
        give_back();
    }
}

fn take(mouse: bool) -> io::Result<()> {
    enable_raw_mode()?;
    TAKEN.store(true, Ordering::SeqCst);
    let mut out = stdout();
    queue!(out, EnterAlternateScreen, Hide)?;
    if mouse {
        queue!(out, Print(MOUSE_ON))?;
    }
    out.flush().inspect_err(|_| give_back())
}

fn give_back() {
    if TAKEN.swap(false, Ordering::SeqCst) {
        // Nobody is left to tell when the terminal itself is gone.
        let _ = execute!(stdout(), Print(MOUSE_OFF), LeaveAlternateScreen, Show);
        let _ = disable_raw_mode();
    }
}

fn give_back_on_panic() {
    let report = panic::take_hook();
    panic::set_hook(Box::new(move |panic| {
        give_back();
        report(panic);
        if thread::current().name() != Some("main") {
            // A polling thread that died would leave a screen that looks alive.
            std::process::exit(101);
        }
    }));
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::num::NonZeroU16;
    use std::sync::{Arc, Mutex};

    use portable_pty::{CommandBuilder, PtySize, native_pty_system};

    use super::*;
    use crate::view::Deliver;
    use crate::view::tests::rwsgi_screen;

    const NAME: &str = "view::terminal::tests::a_panic_anywhere_gives_the_terminal_back_and_is_told";

    /// rtop's own loop, in which something goes wrong that must not.
    fn panicking(place: &str) -> ! {
        let shown = crate::view::run(
            crate::view::Face::Pools(Box::new(rwsgi_screen(2, 3))),
            true,
            |deliver: &dyn Fn() -> Deliver| {
                assert_ne!(place, "loop", "a panic of the loop");
                let deliver = deliver();
                thread::Builder::new().name("reader".into()).spawn(move || {
                    let _deliver = deliver;
                    panic!("a panic of a reader");
                })?;
                Ok(|_| ())
            },
        );
        unreachable!("{shown:?}")
    }

    #[test]
    fn a_panic_anywhere_gives_the_terminal_back_and_is_told() {
        if let Ok(place) = std::env::var("RTOP_TEST_PANICS_IN") {
            panicking(&place);
        }
        for (place, told) in [("loop", "a panic of the loop"), ("reader", "a panic of a reader")] {
            let pair = native_pty_system().openpty(PtySize { rows: 40, cols: 120, ..PtySize::default() }).unwrap();
            let mut command = CommandBuilder::new(std::env::current_exe().unwrap());
            command.args([NAME, "--exact", "--nocapture"]);
            command.env("RTOP_TEST_PANICS_IN", place);
            let mut child = pair.slave.spawn_command(command).unwrap();
            let size = |cells: u16| NonZeroU16::new(cells).unwrap();
            let screen = Arc::new(Mutex::new((vt100::Parser::new(size(40), size(120), 0), false)));
            let (mut output, shown) = (pair.master.try_clone_reader().unwrap(), Arc::clone(&screen));
            let reader = thread::spawn(move || {
                let mut byte = [0];
                while let Ok(1) = output.read(&mut byte) {
                    let (parser, taken) = &mut *shown.lock().unwrap();
                    parser.process(&byte);
                    *taken |= parser.screen().alternate_screen();
                }
            });
            assert_eq!(child.wait().unwrap().exit_code(), 101, "{place}");
            // The settings are asked for while the terminal is there, the rest is read to its end.
            let flags = pair.master.get_termios().unwrap().local_flags.bits();
            drop((pair.slave, pair.master));
            reader.join().unwrap();
            let (parser, taken) = &*screen.lock().unwrap();
            let shown = parser.screen();
            assert!(*taken, "the terminal was never taken over");
            assert!(!shown.alternate_screen() && !shown.hide_cursor(), "{place}");
            assert_eq!(shown.mouse_protocol_mode(), vt100::MouseProtocolMode::None);
            assert!(shown.contents().contains(told), "{}", shown.contents());
            // Whole lines, and an echo: 2 and 8 in Linux' termios.
            assert_eq!(flags & 0o12, 0o12, "{place}: local flags {flags:o}");
        }
    }
}
