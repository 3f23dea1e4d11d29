//! Figures for monitoring: OpenMetrics text, in a file for node_exporter or served over HTTP.

use super::Read;
use anyhow::{bail, Context, Result};
use slabside_view::figures::Figures;
use std::fmt::Write as _;
use std::fs;
use std::io::{BufRead, BufReader, ErrorKind, Read as _, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::time::{Duration, Instant};

/// How long a client may take to ask, and how much.
const PATIENCE: Duration = Duration::from_secs(2);
const ASKED_MOST: u64 = 8192;

/// A target's figures.
pub struct Sample {
    /// Its process number. 0 means not known.
    pub pid: u32,
    /// Its program.
    pub program: String,
    /// Its figures.
    pub figures: Figures,
}

impl Sample {
    /// The figures of what was read.
    pub fn of(read: &Read) -> Sample {
        let about = read.target.about();
        Sample {
            pid: about.pid,
            program: about.program,
            figures: read.figures(),
        }
    }
}

/// A gauge or counter: its name, its kind, what it is, and how it is read.
type Metric = (
    &'static str,
    &'static str,
    &'static str,
    fn(&Figures) -> u64,
);

const METRICS: [Metric; 15] = [
    (
        "resident_bytes",
        "gauge",
        "Resident memory of the process",
        |f| f.resident,
    ),
    ("allocated_bytes", "gauge", "Bytes in live blocks", |f| {
        f.allocated
    }),
    ("live_bytes", "gauge", "Resident part of live blocks", |f| {
        f.live
    }),
    (
        "quarantine_bytes",
        "gauge",
        "Freed blocks in a quarantine",
        |f| f.quarantine,
    ),
    (
        "waiting_bytes",
        "gauge",
        "Freed by other threads and not collected by their owner",
        |f| f.waiting,
    ),
    (
        "idle_slots_bytes",
        "gauge",
        "Free slots of slabs in use",
        |f| f.idle_slots,
    ),
    (
        "holes_bytes",
        "gauge",
        "Parts of slabs that are no slots",
        |f| f.holes,
    ),
    ("free_pages_bytes", "gauge", "Free pages of the heap", |f| {
        f.free_pages
    }),
    (
        "kept_bytes",
        "gauge",
        "Freed mappings kept for reuse",
        |f| f.kept,
    ),
    ("metadata_bytes", "gauge", "Bookkeeping", |f| f.metadata),
    (
        "other_bytes",
        "gauge",
        "Resident memory that is not the heap",
        |f| f.rest,
    ),
    (
        "pinned_bytes",
        "gauge",
        "Pages of slabs that are at most an eighth full",
        |f| f.pinned,
    ),
    ("blocks", "gauge", "Live blocks", |f| f.blocks),
    (
        "handed_out_bytes",
        "counter",
        "Bytes handed out since the start",
        |f| f.handed_out,
    ),
    (
        "purged_bytes",
        "counter",
        "Bytes given back inside the heap since the start",
        |f| f.purged,
    ),
];

/// The figures as OpenMetrics text. `end`: with the mark that closes it, which node_exporter's files do not have.
pub fn text(samples: &[Sample], end: bool) -> String {
    let mut text = String::new();
    for (name, kind, help, value) in METRICS {
        let suffix = match (kind, end) {
            ("counter", true) => "_total",
            _ => "",
        };
        let _ = writeln!(text, "# HELP slabside_{name} {help}.");
        let _ = writeln!(text, "# TYPE slabside_{name} {kind}");
        for sample in samples {
            let _ = writeln!(
                text,
                "slabside_{name}{suffix}{{{}}} {}",
                labels(sample),
                value(&sample.figures)
            );
        }
    }
    for (name, help) in [
        ("class_live_blocks", "Live blocks by slot size"),
        ("class_slots", "Slots by slot size"),
    ] {
        let _ = writeln!(text, "# HELP slabside_{name} {help}.");
        let _ = writeln!(text, "# TYPE slabside_{name} gauge");
        for sample in samples {
            for class in &sample.figures.classes {
                let value = if name == "class_slots" {
                    class.slots
                } else {
                    class.live
                };
                let kind = if class.span { "span" } else { "slab" };
                let _ = writeln!(
                    text,
                    "slabside_{name}{{{},size=\"{}\",kind=\"{kind}\"}} {value}",
                    labels(sample),
                    class.size
                );
            }
        }
    }
    if end {
        text += "# EOF\n";
    }
    text
}

fn labels(sample: &Sample) -> String {
    let escaped: String = sample
        .program
        .chars()
        .map(|c| match c {
            '\\' => "\\\\".into(),
            '"' => "\\\"".into(),
            '\n' => "\\n".into(),
            c => c.to_string(),
        })
        .collect();
    format!("pid=\"{}\",program=\"{escaped}\"", sample.pid)
}

/// Writes the figures to `path` in one step, so that no reader sees half of them. What is no file, such as a pipe or a
/// device, stays in its place, and so does a link.
pub fn write(path: &Path, samples: &[Sample]) -> Result<()> {
    let failed = || format!("cannot write '{}'", path.display());
    if fs::metadata(path).is_ok_and(|one| !one.is_file()) {
        return fs::write(path, text(samples, false)).with_context(failed);
    }
    let path = fs::canonicalize(path).unwrap_or_else(|_| path.into());
    let mut beside = path.as_os_str().to_owned();
    beside.push(format!(".{}", std::process::id()));
    let done = fs::write(&beside, text(samples, false)).and_then(|()| fs::rename(&beside, &path));
    if done.is_err() {
        let _ = fs::remove_file(&beside);
    }
    done.with_context(failed)
}

/// Where to listen: a port is one of this machine alone. An address is taken as it is given.
pub fn address(given: &str) -> Result<SocketAddr> {
    let port = given.strip_prefix(':').unwrap_or(given);
    if let Ok(port) = port.parse() {
        return Ok(SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port));
    }
    match given.parse() {
        Ok(address) => Ok(address),
        Err(_) => {
            bail!("'{given}' is neither a port nor an address with a port, such as 127.0.0.1:9400")
        }
    }
}

/// Serves what `sample` returns to each client in turn, for good.
pub fn serve(
    listener: &TcpListener,
    mut sample: impl FnMut() -> Result<Vec<Sample>>,
) -> Result<()> {
    for client in listener.incoming() {
        match client {
            Ok(client) => {
                // A client that goes away is its own affair.
                let _ = answer(client, PATIENCE, &mut sample);
            }
            Err(error) if error.kind() == ErrorKind::ConnectionAborted => {}
            Err(error) => return Err(error).context("cannot accept a client"),
        }
    }
    Ok(())
}

/// What a client asks, as far as it comes before `end`. Others wait meanwhile, so a byte now and then is not enough.
struct Asked<'a> {
    client: &'a TcpStream,
    end: Instant,
}

impl std::io::Read for Asked<'_> {
    fn read(&mut self, into: &mut [u8]) -> std::io::Result<usize> {
        let left = self.end.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(ErrorKind::TimedOut.into());
        }
        self.client.set_read_timeout(Some(left))?;
        let mut client = self.client;
        client.read(into)
    }
}

/// Answers one request, which may take so long to come.
pub fn answer(
    mut client: TcpStream,
    patience: Duration,
    sample: &mut impl FnMut() -> Result<Vec<Sample>>,
) -> std::io::Result<()> {
    client.set_write_timeout(Some(patience))?;
    let asked = Asked {
        client: &client,
        end: Instant::now() + patience,
    };
    let mut lines = BufReader::new(asked.take(ASKED_MOST)).lines();
    let first = lines.next().unwrap_or(Ok(String::new()))?;
    for line in lines {
        if line?.is_empty() {
            break;
        }
    }
    let path = first.split(' ').nth(1).unwrap_or("");
    let (status, kind, body) = match (first.starts_with("GET "), path) {
        (true, "/metrics" | "/") => match sample() {
            Ok(samples) => (
                "200 OK",
                "application/openmetrics-text; version=1.0.0; charset=utf-8",
                text(&samples, true),
            ),
            Err(error) => (
                "503 Service Unavailable",
                "text/plain",
                format!("{error:#}\n"),
            ),
        },
        (true, _) => ("404 Not Found", "text/plain", "only /metrics\n".into()),
        _ => ("405 Method Not Allowed", "text/plain", "only GET\n".into()),
    };
    write!(
        client,
        "HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
        body.len()
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use slabside_view::figures::Class;
    use std::os::unix::fs::symlink;

    fn sample() -> Sample {
        Sample {
            pid: 7,
            program: "a\"b".into(),
            figures: Figures {
                resident: 100,
                handed_out: 5,
                classes: vec![Class {
                    size: 16,
                    live: 3,
                    slots: 256,
                    ..Class::default()
                }],
                ..Figures::default()
            },
        }
    }

    #[test]
    fn each_metric_has_help_type_and_value() {
        let text = text(&[sample()], true);
        assert!(text.contains("# TYPE slabside_resident_bytes gauge\n"));
        assert!(text.contains("slabside_resident_bytes{pid=\"7\",program=\"a\\\"b\"} 100\n"));
        assert!(text.contains("slabside_handed_out_bytes_total{"));
        assert!(text.contains(",size=\"16\",kind=\"slab\"} 3\n"));
        assert!(text.ends_with("# EOF\n"));
        assert_eq!(text.matches("# TYPE").count(), METRICS.len() + 2);
    }

    #[test]
    fn a_file_is_replaced_and_a_link_or_a_device_stays_in_its_place() {
        let folder = tempfile::tempdir().unwrap();
        let (file, link) = (folder.path().join("file"), folder.path().join("link"));
        fs::write(&file, "before").unwrap();
        symlink(&file, &link).unwrap();
        write(&link, &[sample()]).unwrap();
        assert!(link.is_symlink());
        assert_eq!(fs::read_to_string(&file).unwrap(), text(&[sample()], false));
        let device = folder.path().join("device");
        symlink("/dev/null", &device).unwrap();
        write(&device, &[sample()]).unwrap();
        assert!(device.is_symlink() && !fs::metadata(&device).unwrap().is_file());
    }

    #[test]
    fn a_port_alone_is_of_this_machine() {
        assert!(address("9400").unwrap().ip().is_loopback());
        assert!(address(":9400").unwrap().ip().is_loopback());
        assert_eq!(address("0.0.0.0:80").unwrap().port(), 80);
        assert!(address("here").is_err());
    }

    #[test]
    fn metrics_are_served_and_nothing_else() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let at = listener.local_addr().unwrap();
        let server = std::thread::spawn(move || {
            for _ in 0..3 {
                let (client, _) = listener.accept().unwrap();
                answer(client, PATIENCE, &mut || Ok(vec![sample()])).unwrap();
            }
        });
        let ask = |request: &str| {
            let mut client = TcpStream::connect(at).unwrap();
            client.write_all(request.as_bytes()).unwrap();
            let mut text = String::new();
            client.read_to_string(&mut text).unwrap();
            text
        };
        assert!(ask("GET /metrics HTTP/1.1\r\n\r\n").contains("slabside_resident_bytes{"));
        assert!(ask("GET /etc/passwd HTTP/1.1\r\n\r\n").starts_with("HTTP/1.1 404"));
        assert!(ask("POST / HTTP/1.1\r\n\r\n").starts_with("HTTP/1.1 405"));
        server.join().unwrap();
    }

    /// It asks for a hundred times as long as it may.
    #[test]
    fn a_client_that_asks_byte_by_byte_does_not_hold_up_the_others() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let at = listener.local_addr().unwrap();
        let patience = Duration::from_millis(50);
        let asking = std::thread::spawn(move || {
            let mut client = TcpStream::connect(at).unwrap();
            for _ in 0..500 {
                if client.write_all(b"G").is_err() {
                    return;
                }
                std::thread::sleep(patience / 5);
            }
        });
        let (client, _) = listener.accept().unwrap();
        let answered = answer(client, patience, &mut || Ok(vec![sample()]));
        let kind = answered.map_err(|error| error.kind());
        // The system's own word for the end of a wait is `WouldBlock`.
        assert!(matches!(
            kind,
            Err(ErrorKind::TimedOut | ErrorKind::WouldBlock)
        ));
        asking.join().unwrap();
    }
}
