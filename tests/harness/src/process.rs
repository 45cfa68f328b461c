//! Child processes that end with this process, even if it is killed.

use std::{
    fs::{self, File},
    io::Write as _,
    path::{Path, PathBuf},
    process::{Child, ChildStdin, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

/// Shell supervisor: starts the child, forwards the signals that it reads from standard input, and kills the
/// child when standard input closes, which the kernel does even if a test panics or is killed.
const SUPERVISE: &str = r#"
exec 3<&0
log=$1; pidfile=$2; shift 2
"$@" 3<&- </dev/null >"$log" 2>&1 & pid=$!
echo $pid >"$pidfile"
{ while read -r signal <&3; do kill -"$signal" $pid; done; kill -KILL $pid; } 2>/dev/null &
wait $pid
"#;

/// A running program with its log.
#[derive(Debug)]
pub struct Process {
    supervisor: Child,
    control: Option<ChildStdin>,
    log: PathBuf,
    pidfile: PathBuf,
}

impl Process {
    /// Starts `command`; its output goes to `<name>.log` in `folder`.
    pub fn start(folder: &Path, name: &str, command: &Command) -> Self {
        let (log, pidfile) = (folder.join(format!("{name}.log")), folder.join(format!("{name}.pid")));
        let _ = fs::remove_file(&pidfile);
        let mut supervisor = Command::new("sh");
        supervisor
            .args(["-c", SUPERVISE, "sh"])
            .arg(&log)
            .arg(&pidfile)
            .arg(command.get_program())
            .args(command.get_args());
        for (key, value) in command.get_envs() {
            match value {
                Some(value) => supervisor.env(key, value),
                None => supervisor.env_remove(key),
            };
        }
        let mut supervisor =
            supervisor.stdin(Stdio::piped()).stderr(Stdio::null()).spawn().expect("sh starts");
        let control = supervisor.stdin.take();
        Self { supervisor, control, log, pidfile }
    }

    /// Path of its log.
    pub fn log_path(&self) -> &Path {
        &self.log
    }

    /// Its output so far.
    pub fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// `true` if the program has ended.
    pub fn has_ended(&mut self) -> bool {
        !matches!(self.supervisor.try_wait(), Ok(None))
    }

    /// Process ID of the program, not of its supervisor.
    pub fn pid(&self) -> Option<u32> {
        fs::read_to_string(&self.pidfile).ok()?.trim().parse().ok()
    }

    /// Present and peak resident memory, in KiB.
    pub fn memory(&self) -> Option<(u64, u64)> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid()?)).ok()?;
        Some((status_field(&status, "VmRSS:")?, status_field(&status, "VmHWM:")?))
    }

    /// CPU time on all cores, in the kernel's steps of 10 ms.
    pub fn cpu(&self) -> Option<Duration> {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.pid()?)).ok()?;
        // The program's name is in parentheses and may contain any character (proc_pid_stat(5): utime is
        // field 14, stime 15).
        let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
        let ticks = |i: usize| fields.get(i)?.parse::<u64>().ok();
        Some(Duration::from_millis(10 * (ticks(11)? + ticks(12)?)))
    }

    /// Sends a signal by name, such as `TERM`.
    pub fn signal(&mut self, signal: &str) {
        if let Some(control) = &mut self.control {
            let _ = writeln!(control, "{signal}");
        }
    }

    /// Sends SIGTERM and waits for the end; returns `true` if the exit code is 0.
    ///
    /// # Panics
    /// If the program does not end within 10 s.
    pub fn terminate(mut self) -> bool {
        self.signal("TERM");
        let started = Instant::now();
        while started.elapsed() < Duration::from_secs(10) {
            if let Ok(Some(status)) = self.supervisor.try_wait() {
                return status.success();
            }
            thread::sleep(Duration::from_millis(10));
        }
        panic!("a program did not end within 10 s of SIGTERM; its log: {}", self.log.display());
    }

    /// Renames the log to the extension `suffix`, so that the next start of the same name does not overwrite
    /// it.
    pub fn keep_log(&self, suffix: &str) {
        let _ = fs::rename(&self.log, self.log.with_extension(suffix));
    }
}

/// Number in a line of `/proc/PID/status`.
fn status_field(status: &str, name: &str) -> Option<u64> {
    status.lines().find_map(|line| line.strip_prefix(name)?.split_whitespace().next()?.parse().ok())
}

impl Drop for Process {
    fn drop(&mut self) {
        self.control = None;
        let _ = self.supervisor.wait();
    }
}

/// Writes a file and returns its path.
pub fn write(path: PathBuf, content: impl AsRef<[u8]>) -> PathBuf {
    let mut file = File::create(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    file.write_all(content.as_ref()).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    path
}
