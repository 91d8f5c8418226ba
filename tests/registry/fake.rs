//! A registry in memory that keeps to the distribution specification and complains about whoever does not, with a twist
//! that each test gives it.

use std::collections::HashMap;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

use sandbox::image::reference::Digest;

/// A request as it came.
#[derive(Debug, Clone)]
pub(crate) struct Asked {
    pub(crate) method: String,
    /// Path and query.
    pub(crate) target: String,
    pub(crate) headers: HashMap<String, String>,
    pub(crate) body: Vec<u8>,
}

impl Asked {
    pub(crate) fn is(&self, method: &str, part: &str) -> bool {
        self.method == method && self.target.contains(part)
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(String::as_str)
    }
}

/// An answer.
#[derive(Debug, Clone)]
pub(crate) struct Answer {
    status: u16,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
    /// After so many bytes of the body the connection is closed.
    cut: Option<usize>,
}

impl Answer {
    pub(crate) fn new(status: u16) -> Self {
        Self { status, headers: Vec::new(), body: Vec::new(), cut: None }
    }

    pub(crate) fn with(mut self, name: &str, value: impl ToString) -> Self {
        self.headers.push((name.to_owned(), value.to_string()));
        self
    }

    pub(crate) fn body(mut self, body: impl Into<Vec<u8>>) -> Self {
        self.body = body.into();
        self
    }

    pub(crate) fn cut(mut self, bytes: usize) -> Self {
        self.cut = Some(bytes);
        self
    }
}

/// What a registry holds.
#[derive(Debug, Default)]
pub(crate) struct Store {
    /// By digest.
    pub(crate) blobs: HashMap<String, Vec<u8>>,
    /// By digest or tag.
    pub(crate) manifests: HashMap<String, Vec<u8>>,
    uploads: HashMap<String, Vec<u8>>,
    next: u32,
    /// Where a client broke the specification.
    complaints: Vec<String>,
}

impl Store {
    pub(crate) fn keep(&mut self, bytes: &[u8]) -> Digest {
        let digest = Digest::of(bytes);
        self.blobs.insert(digest.to_string(), bytes.to_vec());
        digest
    }

    pub(crate) fn keep_manifest(&mut self, bytes: &[u8]) -> Digest {
        let digest = Digest::of(bytes);
        self.manifests.insert(digest.to_string(), bytes.to_vec());
        digest
    }

    fn complain(&mut self, asked: &Asked, text: &str) -> Answer {
        self.complaints.push(format!("{} {}: {text}", asked.method, asked.target));
        Answer::new(400)
    }

    /// What the specification has as the answer.
    pub(crate) fn answer(&mut self, asked: &Asked) -> Answer {
        let (path, query) = asked.target.split_once('?').unwrap_or((&asked.target, ""));
        let query: HashMap<String, String> =
            reqwest::Url::parse(&format!("x:?{query}")).unwrap().query_pairs().into_owned().collect();
        let Some((_, rest)) = path.strip_prefix("/v2/").and_then(|path| path.split_once('/')) else {
            return Answer::new(404);
        };
        let (kind, name) = rest.split_once('/').unwrap_or((rest, ""));
        match (asked.method.as_str(), kind, name) {
            ("GET" | "HEAD", "manifests", name) => match self.manifests.get(name) {
                Some(_) if asked.header("accept").is_none() => self.complain(asked, "no Accept"),
                Some(bytes) => Answer::new(200).body(bytes.clone()),
                None => Answer::new(404),
            },
            ("PUT", "manifests", name) => {
                let wanted = serde_json::from_slice::<serde_json::Value>(&asked.body).unwrap();
                if asked.header("content-type") != wanted["mediaType"].as_str() {
                    return self.complain(asked, "Content-Type is not the mediaType");
                }
                if name.starts_with("sha256:") && Digest::of(&asked.body).to_string() != name {
                    return self.complain(asked, "another digest");
                }
                self.manifests.insert(name.to_owned(), asked.body.clone());
                Answer::new(201)
            }
            ("POST", "blobs", "uploads/") => {
                if query.get("mount").is_some_and(|digest| self.blobs.contains_key(digest)) {
                    return Answer::new(201);
                }
                self.next += 1;
                let id = format!("u{}", self.next);
                self.uploads.insert(id.clone(), Vec::new());
                Answer::new(202).with("Location", format!("{path}{id}?state=0"))
            }
            ("GET" | "PATCH" | "PUT", "blobs", name) if name.starts_with("uploads/") => {
                self.upload(asked, path, &query, name.trim_start_matches("uploads/"))
            }
            ("GET" | "HEAD", "blobs", name) => self.blob(asked, name),
            _ => self.complain(asked, "no such call"),
        }
    }

    fn blob(&mut self, asked: &Asked, digest: &str) -> Answer {
        let Some(bytes) = self.blobs.get(digest).cloned() else { return Answer::new(404) };
        let Some(range) = asked.header("range") else { return Answer::new(200).body(bytes) };
        let start = range.strip_prefix("bytes=").and_then(|range| range.strip_suffix('-'));
        let Some(start) = start.and_then(|start| start.parse::<usize>().ok()) else {
            return self.complain(asked, "a range that is not known");
        };
        let told = format!("bytes {start}-{}/{}", bytes.len() - 1, bytes.len());
        Answer::new(206).with("Content-Range", told).body(&bytes[start..])
    }

    fn upload(&mut self, asked: &Asked, path: &str, query: &HashMap<String, String>, id: &str) -> Answer {
        let Some(mut bytes) = self.uploads.remove(id) else { return Answer::new(404) };
        // The address of an upload changes with each step, and the former one is not to be used again.
        if query.get("state") != Some(&bytes.len().to_string()) && asked.method != "GET" {
            return self.complain(asked, "an address of a former step");
        }
        if asked.method == "PUT" {
            let digest = Digest::of(&bytes).to_string();
            if query.get("digest") != Some(&digest) {
                return self.complain(asked, "the upload has another digest");
            }
            self.blobs.insert(digest.clone(), bytes);
            return Answer::new(201).with("Docker-Content-Digest", digest);
        }
        if asked.method == "PATCH" {
            let (start, length) = (bytes.len(), asked.header("content-length").unwrap_or_default());
            let end = (start + length.parse::<usize>().unwrap_or_default()).saturating_sub(1);
            let told = asked.header("content-range");
            if told.is_some_and(|told| told != format!("{start}-{end}")) || (told.is_none() && start > 0) {
                return self.complain(asked, "a Content-Range that does not go on");
            }
            bytes.extend_from_slice(&asked.body);
        }
        let count = bytes.len();
        self.uploads.insert(id.to_owned(), bytes);
        let status = if asked.method == "GET" { 204 } else { 202 };
        let range = format!("0-{}", count.saturating_sub(1));
        Answer::new(status).with("Location", format!("{path}?state={count}")).with("Range", range)
    }
}

/// Sees each request before the registry does, and may answer it, or say that the connection breaks after so many bytes
/// of the request's body.
pub(crate) type Twist = dyn Fn(&Asked, &mut Store) -> Option<Answer> + Send + Sync;

/// A running fake. What it was asked is in `log`.
pub(crate) struct Fake {
    pub(crate) address: SocketAddr,
    pub(crate) store: Arc<Mutex<Store>>,
    pub(crate) log: Arc<Mutex<Vec<Asked>>>,
}

impl Fake {
    pub(crate) fn start(twist: impl Fn(&Asked, &mut Store) -> Option<Answer> + Send + Sync + 'static) -> Self {
        Self::breaking(None, twist)
    }

    /// Breaks the first upload after so many bytes.
    pub(crate) fn breaking(
        upload: Option<usize>,
        twist: impl Fn(&Asked, &mut Store) -> Option<Answer> + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let (store, log) = (Arc::<Mutex<Store>>::default(), Arc::<Mutex<Vec<Asked>>>::default());
        let twist: Arc<Twist> = Arc::new(twist);
        let breaking = Arc::new(Mutex::new(upload));
        let (kept, seen) = (store.clone(), log.clone());
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let (store, log, twist, breaking) = (kept.clone(), seen.clone(), twist.clone(), breaking.clone());
                std::thread::spawn(move || serve(stream, &store, &log, &*twist, &breaking));
            }
        });
        Self { address, store, log }
    }

    pub(crate) fn asked(&self, method: &str, part: &str) -> Vec<Asked> {
        self.log.lock().unwrap().iter().filter(|asked| asked.is(method, part)).cloned().collect()
    }
}

impl Drop for Fake {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            assert_eq!(self.store.lock().unwrap().complaints, Vec::<String>::new());
        }
    }
}

fn serve(
    stream: TcpStream,
    store: &Mutex<Store>,
    log: &Mutex<Vec<Asked>>,
    twist: &Twist,
    breaking: &Mutex<Option<usize>>,
) {
    let mut output = stream.try_clone().unwrap();
    let mut input = BufReader::new(stream);
    loop {
        let mut lines = Vec::new();
        loop {
            let mut line = String::new();
            match input.read_line(&mut line) {
                Ok(0) | Err(_) => return,
                Ok(_) if line == "\r\n" => break,
                Ok(_) => lines.push(line.trim_end().to_owned()),
            }
        }
        let mut words = lines[0].split(' ');
        let (method, target) = (words.next().unwrap().to_owned(), words.next().unwrap().to_owned());
        let headers: HashMap<String, String> = lines[1..]
            .iter()
            .filter_map(|line| line.split_once(':'))
            .map(|(name, value)| (name.to_lowercase(), value.trim().to_owned()))
            .collect();
        let length = headers.get("content-length").and_then(|length| length.parse().ok()).unwrap_or(0);
        let stop = if method == "PATCH" { breaking.lock().unwrap().take().filter(|stop| *stop < length) } else { None };
        let mut body = vec![0; stop.unwrap_or(length)];
        if input.read_exact(&mut body).is_err() {
            return;
        }
        let asked = Asked { method, target, headers, body };
        log.lock().unwrap().push(asked.clone());
        let answer = {
            let mut store = store.lock().unwrap();
            twist(&asked, &mut store).unwrap_or_else(|| store.answer(&asked))
        };
        if stop.is_some() {
            return;
        }
        let mut head = format!("HTTP/1.1 {} x\r\nContent-Length: {}\r\n", answer.status, answer.body.len());
        for (name, value) in &answer.headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        head.push_str("\r\n");
        let body = if asked.method == "HEAD" { &[][..] } else { &answer.body[..] };
        let sent = &body[..answer.cut.unwrap_or(body.len()).min(body.len())];
        if output.write_all(head.as_bytes()).and_then(|()| output.write_all(sent)).is_err() || answer.cut.is_some() {
            return;
        }
    }
}
