//! Who may come in: logins, TLS, addresses and permissions, as clients and operators meet them.

use std::fs::{self, Permissions};
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::os::unix::fs::{FileTypeExt as _, PermissionsExt as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Instant;

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

use crate::support::daemon::quoted;
use crate::support::wire::PATIENCE;
use crate::support::{Config, Daemon, Home, Random, setting, until};

/// A login of the user that [`with_users`] makes.
const LOGIN: &[u8] = b"set auth 0 0 12\r\nalice secret\r\n";

/// Runs `storage_server passwd` with this password on its standard input.
fn passwd(password: &str, args: &[&str]) -> (Option<i32>, String, String) {
    let mut child = Command::new(env!("CARGO_BIN_EXE_storage_server"))
        .arg("passwd")
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // A name that cannot be used is refused before the password is read.
    let _ = writeln!(child.stdin.take().unwrap(), "{password}");
    let output = child.wait_with_output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (
        output.status.code(),
        text(output.stdout),
        text(output.stderr),
    )
}

fn add_user(file: &Path, user: &str, password: &str) {
    let done = passwd(password, &["--file", file.to_str().unwrap(), user]);
    assert_eq!(done, (Some(0), String::new(), String::new()));
}

/// A home whose users file has alice, password `secret`.
fn with_users(config: Config) -> (Home, PathBuf) {
    let mut home = Home::new(config);
    let users = home.path("users");
    add_user(&users, "alice", "secret");
    home.reconfigure(|config| config.set("access", "users", &quoted(&users)));
    (home, users)
}

/// An authority, and files with a certificate for `localhost` that it has signed.
struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
}

impl Authority {
    fn new() -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new([]).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let pem = params.self_signed(&key).unwrap().pem();
        let issuer = Issuer::new(params, key);
        Self { issuer, pem }
    }

    /// The PEM of a new certificate and of its key.
    fn certificate(&self, name: &str) -> (String, String) {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new([name.to_owned()]).unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        (certificate.pem(), key.serialize_pem())
    }

    /// Writes a new certificate and its key where [`with_tls`] has the server look for them.
    fn write(&self, home: &Home) -> String {
        let (certificate, key) = self.certificate("localhost");
        fs::write(home.path("cert.pem"), &certificate).unwrap();
        write_secret(&home.path("key.pem"), &key);
        certificate
    }

    fn client(&self, identity: Option<(String, String)>) -> Arc<ClientConfig> {
        let mut roots = RootCertStore::empty();
        let root = CertificateDer::from_pem_slice(self.pem.as_bytes()).unwrap();
        roots.add(root).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots);
        let config = match identity {
            None => builder.with_no_client_auth(),
            Some((certificate, key)) => {
                let certificate = CertificateDer::from_pem_slice(certificate.as_bytes()).unwrap();
                let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap();
                builder
                    .with_client_auth_cert(vec![certificate], key)
                    .unwrap()
            }
        };
        Arc::new(config)
    }
}

fn write_secret(path: &Path, text: &str) {
    fs::write(path, text).unwrap();
    fs::set_permissions(path, Permissions::from_mode(0o600)).unwrap();
}

/// A home that speaks TLS, and a plain address for the tests' own questions.
fn with_tls(authority: &Authority, config: Config) -> Home {
    let mut home = Home::new(config);
    authority.write(&home);
    let (cert, key) = (home.path("cert.pem"), home.path("key.pem"));
    home.reconfigure(|config| {
        config.set("server", "listen", "[\"tls:127.0.0.1:0\", \"127.0.0.1:0\"]");
        config.set("tls", "cert", &quoted(&cert));
        config.set("tls", "key", &quoted(&key));
    });
    home
}

/// The address of the listener that is logged with this prefix.
fn address(daemon: &Daemon, prefix: &str) -> String {
    let line = daemon.logged(&[&format!("listening on {prefix}")]);
    let (_, address) = line.split_once(&format!("listening on {prefix}")).unwrap();
    address.trim().to_owned()
}

fn tls(address: &str, config: &Arc<ClientConfig>) -> StreamOwned<ClientConnection, TcpStream> {
    let socket = TcpStream::connect(address).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    let name = ServerName::try_from("localhost").unwrap();
    StreamOwned::new(
        ClientConnection::new(Arc::clone(config), name).unwrap(),
        socket,
    )
}

/// Sends a request and reads a reply of this length.
fn ask(stream: &mut (impl Read + Write), request: &[u8], expected: &str) {
    stream.write_all(request).unwrap();
    let mut reply = vec![0; expected.len()];
    stream.read_exact(&mut reply).unwrap();
    assert_eq!(String::from_utf8(reply).unwrap(), expected);
}

/// Everything that comes until the server closes; a reset ends it, too.
fn drain(stream: &mut impl Read) -> Vec<u8> {
    let (mut all, mut piece) = (Vec::new(), [0; 4096]);
    while let Ok(count @ 1..) = stream.read(&mut piece) {
        all.extend_from_slice(&piece[..count]);
    }
    all
}

trait Stream: Read + Write {}
impl<T: Read + Write> Stream for T {}

/// Makes a connection.
type Connect = Box<dyn Fn() -> Box<dyn Stream>>;

/// A connection to each kind of listener of a daemon that asks for logins on all of them.
fn each_listener() -> (Home, Daemon, Vec<Connect>) {
    let authority = Authority::new();
    let (mut home, _) = with_users(Config::standard());
    authority.write(&home);
    let (cert, key) = (home.path("cert.pem"), home.path("key.pem"));
    let socket = home.path("socket");
    home.reconfigure(|config| {
        let unix = quoted(&PathBuf::from(format!("unix:{}", socket.display())));
        let listen = format!("[{unix}, \"tls:127.0.0.1:0\", \"[::1]:0\", \"127.0.0.1:0\"]");
        config.set("server", "listen", &listen);
        config.set("tls", "cert", &quoted(&cert));
        config.set("tls", "key", &quoted(&key));
    });
    let daemon = home.start();
    let (tcp, encrypted, six) = (
        address(&daemon, "127.0.0.1:"),
        address(&daemon, "tls:"),
        address(&daemon, "[::1]:"),
    );
    let client = authority.client(None);
    let patient = |socket: TcpStream| {
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        Box::new(socket)
    };
    let connect: Vec<Connect> = vec![
        Box::new(move || patient(TcpStream::connect(format!("127.0.0.1:{tcp}")).unwrap())),
        Box::new(move || Box::new(tls(&encrypted, &client))),
        Box::new(move || patient(TcpStream::connect(format!("[::1]:{six}")).unwrap())),
        Box::new(move || {
            let stream = UnixStream::connect(&socket).unwrap();
            stream.set_read_timeout(Some(PATIENCE)).unwrap();
            Box::new(stream)
        }),
    ];
    (home, daemon, connect)
}

#[test]
fn before_its_login_a_client_is_heard_on_no_listener() {
    let (_home, _daemon, listeners) = each_listener();
    for connect in &listeners {
        let mut stream = connect();
        let refused = "CLIENT_ERROR unauthenticated\r\n";
        for request in [
            "get 2.1\r\n",
            "version\r\n",
            "stats\r\n",
            "flush_all\r\n",
            "term\r\n",
            "shutdown\r\n",
            "mg a v\r\n",
            "\r\n",
            "quit\r\n",
            "incr 2.1 1\r\n",
            "reopen\n",
        ] {
            ask(&mut stream, request.as_bytes(), refused);
        }
        ask(
            &mut stream,
            b"set a 0 0 11\r\nalice wrong\r\n",
            "CLIENT_ERROR authentication failure\r\n",
        );
        // What comes with the login is executed after it, and what came before it is not.
        ask(
            &mut stream,
            &[LOGIN, b"get 2.1\r\n"].concat(),
            "STORED\r\nEND\r\n",
        );
        ask(&mut stream, b"set 2.1 0 0 1\r\n7\r\n", "STORED\r\n");
        // A second login is a storage command like any other.
        ask(&mut stream, LOGIN, "STORED\r\n");
        ask(&mut stream, b"delete 2.1\r\n", "DELETED\r\n");
    }
    let mut stream = listeners[0]();
    ask(&mut stream, LOGIN, "STORED\r\n");
    stream.write_all(b"stats\r\nquit\r\n").unwrap();
    let stats = String::from_utf8(drain(&mut stream)).unwrap();
    assert!(
        stats.contains("STAT auth_cmds 9\r\nSTAT auth_errors 4\r\n"),
        "{stats}"
    );
}

#[test]
fn a_client_that_does_not_log_in_gets_and_gives_a_kilobyte() {
    let (_home, daemon, listeners) = each_listener();
    let smuggled = "set 2.1 0 0 1\r\n7\r\nflush_all\r\n".repeat(2000);
    let endless = "set a 0 0 1048576\r\n".to_owned() + &"set 2.1 0 0 1\r\n7\r\n".repeat(2000);
    for connect in &listeners {
        for input in [smuggled.as_str(), endless.as_str(), &"x".repeat(1 << 20)] {
            let mut stream = connect();
            // The server may close before everything was sent.
            let _ = stream.write_all(input.as_bytes());
            assert!(drain(&mut stream).len() <= 1024);
        }
    }
    let mut stream = listeners[0]();
    ask(
        &mut stream,
        &[LOGIN, b"get 2.1\r\n"].concat(),
        "STORED\r\nEND\r\n",
    );
    daemon.logged(&["before the login"]);
}

#[test]
fn no_login_goes_on_once_its_answer_has_no_room() {
    let (home, _) = with_users(Config::standard());
    let daemon = home.start();
    let talk = |input: &[u8]| {
        let mut stream = TcpStream::connect(daemon.addr()).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.write_all(input).unwrap();
        String::from_utf8(drain(&mut stream)).unwrap()
    };
    // Of these answers 27 fit in a kilobyte, and all the logins do.
    let said = talk(&b"set a 0 0 3\r\na b\r\n".repeat(50));
    assert_eq!(said, "CLIENT_ERROR authentication failure\r\n".repeat(27));
    // Here there is no room for the answer that it is right.
    let said = talk(&[&b"\n".repeat(34), LOGIN, b"set 2.1 0 0 1\r\n7\r\n"].concat());
    assert_eq!(said, "CLIENT_ERROR unauthenticated\r\n".repeat(34));
    let said = talk(&[LOGIN, b"get 2.1\r\nstats\r\nquit\r\n"].concat());
    assert!(said.starts_with("STORED\r\nEND\r\n"), "{said}");
    assert!(said.contains("STAT auth_cmds 30\r\n"), "{said}");
}

/// The mean of some times and the variance of that mean.
fn mean(times: &[f64]) -> (f64, f64) {
    let count = times.len() as f64;
    let mean = times.iter().sum::<f64>() / count;
    let squares: f64 = times.iter().map(|time| (time - mean).powi(2)).sum();
    (mean, squares / (count - 1.0) / count)
}

/// Welch's t: how sure it is that two rows of times have different means.
fn welch(one: &[f64], other: &[f64]) -> f64 {
    let ((one, one_variance), (other, other_variance)) = (mean(one), mean(other));
    (one - other) / (one_variance + other_variance).sqrt()
}

/// Those of both rows that are among the faster half of all: what else the machine has to do
/// makes some slower, and says nothing.
fn faster_half([one, other]: &[Vec<f64>; 2]) -> [Vec<f64>; 2] {
    let mut all = [one.as_slice(), other].concat();
    all.sort_by(f64::total_cmp);
    let median = all[all.len() / 2];
    [one, other].map(|times| {
        let faster = times.iter().copied().filter(|time| *time <= median);
        faster.collect()
    })
}

/// How long a refused login takes on a connection of its own, in microseconds.
fn refused_login_us(daemon: &Daemon, [user, password]: [&str; 2]) -> f64 {
    let mut client = daemon.client();
    let line = format!("{user} {password}");
    let begun = Instant::now();
    let answer = client.set("login", &line).unwrap();
    let took = begun.elapsed();
    assert_eq!(answer, "CLIENT_ERROR authentication failure");
    took.as_secs_f64() * 1e6
}

/// With `STORAGE_SERVER_LOGIN_TIMES=2000` so many logins are timed for each pair of guesses, and
/// Welch's t over them must be below 4.5; without it the guesses are refused alike, and no more.
#[test]
fn the_time_of_a_login_tells_nothing() {
    let pairs = [
        (["nobody", "wrong1"], ["alice", "wrong1"]),
        (["nobody", "secret"], ["alice", "wrong1"]),
        (["alice", "wrong1"], ["alice", "secre1"]),
        (["alice", "w"], ["alice", "secrets"]),
        (["alicf", "wrong1"], ["zzzzz", "wrong1"]),
    ];
    let (home, users) = with_users(Config::standard());
    for at in 0..20 {
        add_user(&users, &format!("user{at}"), "other");
    }
    let daemon = home.start();
    let seed = Random::seed("times of logins");
    let mut random = Random::new(seed);
    let count = setting("STORAGE_SERVER_LOGIN_TIMES", 4);
    for (one, other) in pairs {
        let mut times = [const { Vec::new() }; 2];
        for _ in 0..count {
            // In an order that no other rhythm of the machine follows.
            let at = random.below(2) as usize;
            times[at].push(refused_login_us(&daemon, [one, other][at]));
        }
        if count < 100 {
            continue;
        }
        let t = welch(&times[0], &times[1]);
        let half = faster_half(&times);
        let t_half = welch(&half[0], &half[1]);
        println!(
            "{one:?} and {other:?}, {count} logins: {:.0} and {:.0} us, t = {t:.2}; of the faster \
             half {:.0} and {:.0} us, t = {t_half:.2}",
            mean(&times[0]).0,
            mean(&times[1]).0,
            mean(&half[0]).0,
            mean(&half[1]).0,
        );
        assert!(t.abs() < 4.5 && t_half.abs() < 4.5, "seed {seed}");
    }
}

#[test]
fn unix_sockets_may_be_left_to_their_permissions() {
    let (mut home, _) = with_users(Config::standard());
    let socket = home.path("socket");
    home.reconfigure(|config| {
        let unix = quoted(&PathBuf::from(format!("unix:{}", socket.display())));
        config.set("server", "listen", &format!("[{unix}, \"127.0.0.1:0\"]"));
        config.set("access", "login_on_unix", "false");
    });
    let daemon = home.start();
    let mut local = UnixStream::connect(&socket).unwrap();
    ask(&mut local, b"get 2.1\r\n", "END\r\n");
    let answer = daemon.client().ask("get 2.1").unwrap();
    assert_eq!(answer, "CLIENT_ERROR unauthenticated");
}

#[test]
fn a_hup_reads_the_users_again_and_keeps_the_old_ones_if_it_cannot() {
    let (home, users) = with_users(Config::standard());
    let daemon = home.start();
    let login = |user: &str, password: &str| {
        let line = format!("{user} {password}");
        daemon.client().set("login", &line).unwrap()
    };
    let mut before = daemon.client();
    assert_eq!(before.set("login", "alice secret").unwrap(), "STORED");
    add_user(&users, "alice", "changed");
    add_user(&users, "bob", "other");
    assert_eq!(login("bob", "other"), "CLIENT_ERROR authentication failure");
    assert_eq!(before.ask("reopen").unwrap(), "OK");
    assert_eq!(login("bob", "other"), "STORED");
    assert_eq!(login("alice", "changed"), "STORED");
    assert_eq!(
        login("alice", "secret"),
        "CLIENT_ERROR authentication failure"
    );

    fs::set_permissions(&users, Permissions::from_mode(0o644)).unwrap();
    assert!(
        before
            .ask("reopen")
            .unwrap()
            .starts_with("SERVER_ERROR the users or")
    );
    daemon.logged(&["may be read or changed by others", "0644"]);
    write_secret(&users, "nonsense\n");
    assert!(
        before
            .ask("reopen")
            .unwrap()
            .starts_with("SERVER_ERROR the users or")
    );
    daemon.logged(&["line 1 is not user:hash"]);
    assert_eq!(login("bob", "other"), "STORED");
    assert_eq!(login("eve", "other"), "CLIENT_ERROR authentication failure");
}

#[test]
fn a_start_refuses_what_it_could_not_keep_secret() {
    let (mut home, users) = with_users(Config::standard());
    let refused = |home: &Home, words: &str| {
        for args in [&[][..], &["--check"]] {
            let (code, _, error) = home.run(args);
            assert_eq!(code, Some(78), "{error}");
            assert!(error.contains(words), "{error}");
        }
        assert!(!home.data().exists(), "nothing is touched");
    };
    fs::set_permissions(&users, Permissions::from_mode(0o604)).unwrap();
    refused(
        &home,
        "may be read or changed by others (mode 0604): chmod 600 it",
    );
    fs::remove_file(&users).unwrap();
    refused(&home, "cannot read ");
    write_secret(&users, "# nobody\n");
    refused(&home, "it has no user");
    home.reconfigure(|config| config.set("access", "users", "\"\""));
    for (cert, key, words) in [
        ("nonsense", "nonsense", "there is no certificate in it"),
        ("cert", "nonsense", "is not what it must be, in PEM"),
        ("cert", "other key", "cannot be used for TLS"),
    ] {
        let authority = Authority::new();
        let (real, _) = authority.certificate("localhost");
        let text = |name| match name {
            "cert" => real.clone(),
            "other key" => authority.certificate("localhost").1,
            nonsense => nonsense.to_owned(),
        };
        fs::write(home.path("cert.pem"), text(cert)).unwrap();
        write_secret(&home.path("key.pem"), &text(key));
        let (cert, key) = (home.path("cert.pem"), home.path("key.pem"));
        home.reconfigure(|config| {
            config.set("server", "listen", "\"tls:127.0.0.1:0\"");
            config.set("tls", "cert", &quoted(&cert));
            config.set("tls", "key", &quoted(&key));
        });
        refused(&home, words);
    }
}

#[test]
fn passwd_makes_lines_that_a_server_takes() {
    let home = Home::new(Config::standard());
    let file = home.path("users");
    let name = file.to_str().unwrap();
    let (code, line, _) = passwd("secret", &["alice"]);
    assert_eq!(code, Some(0));
    assert!(
        line.starts_with("alice:$argon2id$v=19$m=19456,t=2,p=1$"),
        "{line}"
    );
    assert!(!line.contains("secret"));
    assert_ne!(
        passwd("secret", &["alice"]).1,
        line,
        "each has its own salt"
    );
    add_user(&file, "alice", "secret");
    add_user(&file, "bob", "secret");
    add_user(&file, "alice", "changed");
    assert_eq!(
        fs::metadata(&file).unwrap().permissions().mode() & 0o777,
        0o600
    );
    let text = fs::read_to_string(&file).unwrap();
    assert_eq!(text.lines().count(), 2, "{text}");
    for (password, user) in [("", "carol"), ("a b", "carol"), ("x", "a:b"), ("x", "")] {
        let (code, out, error) = passwd(password, &["--file", name, user]);
        assert_eq!((code, out.as_str()), (Some(64), ""), "{error}");
    }
    fs::set_permissions(&file, Permissions::from_mode(0o640)).unwrap();
    add_user(&file, "dave", "x");
    assert_eq!(
        fs::metadata(&file).unwrap().permissions().mode() & 0o777,
        0o640
    );
    fs::set_permissions(&file, Permissions::from_mode(0o666)).unwrap();
    let before = fs::read_to_string(&file).unwrap();
    let (code, _, error) = passwd("x", &["--file", name, "eve"]);
    assert_eq!(code, Some(74), "{error}");
    assert!(error.contains("chmod 600"), "{error}");
    assert_eq!(fs::read_to_string(&file).unwrap(), before);
}

#[test]
fn names_and_passwords_have_their_lengths() {
    const NAME: usize = 64;
    const PASSWORD: usize = 256;
    let mut home = Home::new(Config::standard());
    let file = home.path("users");
    let users = file.to_str().unwrap();
    let of = |name, password| ("u".repeat(name), "p".repeat(password));
    let within = [(1, 1), (NAME - 1, PASSWORD), (NAME, PASSWORD - 1)];
    for (name, password) in within {
        let (name, password) = of(name, password);
        add_user(&file, &name, &password);
    }
    let beyond = [(NAME + 1, 1), (2, PASSWORD + 1), (0, 1), (2, 0)];
    for (name, password) in beyond {
        let (name, password) = of(name, password);
        let (code, _, error) = passwd(&password, &["--file", users, &name]);
        assert_eq!(code, Some(64), "{error}");
    }
    home.reconfigure(|config| config.set("access", "users", &quoted(&file)));
    let daemon = home.start();
    let login = |(name, password)| {
        let (name, password) = of(name, password);
        let body = format!("{name} {password}");
        let mut stream = TcpStream::connect(daemon.addr()).unwrap();
        let request = format!("set auth 0 0 {}\r\n{body}\r\nquit\r\n", body.len());
        stream.write_all(request.as_bytes()).unwrap();
        stream.shutdown(Shutdown::Write).unwrap();
        String::from_utf8(drain(&mut stream)).unwrap()
    };
    for lengths in within {
        assert_eq!(login(lengths), "STORED\r\n", "{lengths:?}");
    }
    for lengths in [
        (NAME + 1, 1),
        (NAME, PASSWORD),
        (NAME - 1, PASSWORD + 1),
        (2, 0),
    ] {
        let said = login(lengths);
        assert!(said.starts_with("CLIENT_ERROR "), "{lengths:?}: {said}");
    }
    // Whoever edits the file gets no longer names into it, either.
    daemon.term();
    let text = fs::read_to_string(&file).unwrap();
    fs::write(
        &file,
        text.replace(&"u".repeat(NAME), &"u".repeat(NAME + 1)),
    )
    .unwrap();
    let (code, _, error) = home.run(&[]);
    assert_eq!(code, Some(78), "{error}");
}

#[test]
fn tls_carries_large_values_both_ways() {
    let authority = Authority::new();
    let home = with_tls(
        &authority,
        Config::standard().with("server", "max_value", "\"8m\""),
    );
    let daemon = home.start();
    let mut stream = tls(&address(&daemon, "tls:"), &authority.client(None));
    let mut random = Random::new(Random::seed("tls"));
    for round in 0..20 {
        let length = random.below(1 << (round % 23 + 1)) as usize;
        let value: Vec<u8> = (0..length).map(|_| random.below(256) as u8).collect();
        let line = format!("set 3.1 0 0 {length}\r\n");
        let request = [
            line.as_bytes(),
            &value,
            b"\r\nget 3.1\r\nget 3.1\r\nget 3.1\r\n",
        ];
        let head = format!("VALUE 3.1 0 {length}\r\n");
        let one = [head.as_bytes(), &value, b"\r\nEND\r\n"].concat();
        let expected = [b"STORED\r\n".to_vec(), one.clone(), one.clone(), one].concat();
        stream.write_all(&request.concat()).unwrap();
        let mut reply = vec![0; expected.len()];
        stream.read_exact(&mut reply).unwrap();
        assert!(reply == expected, "round {round}, {length} bytes");
    }
    // The server says goodbye: the end of the stream is not an error.
    stream.write_all(b"quit\r\n").unwrap();
    assert_eq!(stream.read_to_end(&mut Vec::new()).unwrap(), 0);
    assert_eq!(daemon.term().code(), Some(0));
}

#[test]
fn a_hup_takes_a_new_certificate_and_keeps_the_old_one_if_it_is_bad() {
    let authority = Authority::new();
    let home = with_tls(&authority, Config::standard());
    let old = fs::read_to_string(home.path("cert.pem")).unwrap();
    let daemon = home.start();
    let at = address(&daemon, "tls:");
    let client = authority.client(None);
    let shown = || {
        let mut stream = tls(&at, &client);
        ask(&mut stream, b"get 2.1\r\n", "END\r\n");
        stream.conn.peer_certificates().unwrap()[0]
            .clone()
            .into_owned()
    };
    let der = |pem: &str| CertificateDer::from_pem_slice(pem.as_bytes()).unwrap();
    let mut open = tls(&at, &client);
    ask(&mut open, b"get 2.1\r\n", "END\r\n");
    assert_eq!(shown(), der(&old));
    let mut operator = crate::support::Client::connect(plain(&daemon)).unwrap();
    let new = authority.write(&home);
    assert_eq!(shown(), der(&old), "nothing changes before a HUP");
    assert_eq!(operator.ask("reopen").unwrap(), "OK");
    assert_eq!(shown(), der(&new));
    fs::write(home.path("cert.pem"), "nonsense").unwrap();
    assert!(
        operator
            .ask("reopen")
            .unwrap()
            .starts_with("SERVER_ERROR the users or")
    );
    daemon.logged(&["what was in force stays", "cert.pem"]);
    assert_eq!(shown(), der(&new));
    // A connection lives through all of it.
    ask(&mut open, b"get 2.1\r\n", "END\r\n");
}

/// The plain address of a daemon of [`with_tls`].
fn plain(daemon: &Daemon) -> std::net::SocketAddr {
    let port = address(daemon, "127.0.0.1:");
    format!("127.0.0.1:{port}").parse().unwrap()
}

#[test]
fn a_certificate_may_be_asked_of_clients() {
    let (authority, stranger) = (Authority::new(), Authority::new());
    let mut home = with_tls(&authority, Config::standard());
    fs::write(home.path("ca.pem"), &authority.pem).unwrap();
    let ca = home.path("ca.pem");
    home.reconfigure(|config| config.set("tls", "client_ca", &quoted(&ca)));
    let daemon = home.start();
    let at = address(&daemon, "tls:");
    let known = authority.client(Some(authority.certificate("client")));
    ask(&mut tls(&at, &known), b"get 2.1\r\n", "END\r\n");
    for identity in [None, Some(stranger.certificate("client"))] {
        let mut stream = tls(&at, &authority.client(identity));
        let said = stream.write_all(b"set 2.1 0 0 1\r\n7\r\n");
        assert!(said.is_err() || drain(&mut stream).is_empty());
    }
    daemon.logged(&["tls handshake failed"]);
    ask(&mut tls(&at, &known), b"get 2.1\r\n", "END\r\n");
}

#[test]
fn other_protocols_are_closed_at_their_first_line_and_nothing_in_them_runs() {
    let rounds = setting("STORAGE_SERVER_FOREIGN", 10_000);
    let mut random = Random::new(Random::seed("foreign"));
    let home = Home::new(Config::standard());
    let daemon = home.start();
    let bodies = [
        "set 2.1 0 0 1\r\n7\r\n",
        "incr 2.1 1\r\n",
        "flush_all\r\n",
        "term\r\n",
        "set a 0 0 1\r\nx\r\n",
        "delete 2.9\r\n",
        "append 1.1 0 0 1\r\n5\r\n",
    ];
    assert_eq!(daemon.client().set("2.9", "9").unwrap(), "STORED");
    let verbs = [
        "GET",
        "HEAD",
        "POST",
        "PUT",
        "DELETE",
        "CONNECT",
        "OPTIONS",
        "TRACE",
        "PATCH",
        "PROPFIND",
        "QUERY",
        "get",
        "set",
        "delete",
        "append",
        "incr",
        "touch",
        "flush_all",
        "version",
        "stats",
    ];
    for _ in 0..rounds {
        let body: String = (0..5).map(|_| bodies[random.below(7) as usize]).collect();
        let head = match random.below(8) {
            0 => "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".into(),
            1 => b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n".to_vec(),
            2 => [
                b"\x80\x01\x00\x07\x08\0\0\0\0\0\0\x10\0\0\0\0\0\0\0\0\0\0\0\0".to_vec(),
                b"\r\n".to_vec(),
            ]
            .concat(),
            _ => {
                let verb = verbs[random.below(verbs.len() as u64) as usize];
                format!("{verb} /a HTTP/1.{}\r\nHost: a\r\n\r\n", random.below(2)).into_bytes()
            }
        };
        let mut stream = TcpStream::connect(daemon.addr()).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let all = [&head, body.as_bytes()].concat();
        // Some send no more than their first line, and are closed all the same. What begins as
        // a request of memcached does is one, up to the line that follows.
        let requests: [&[u8]; 3] = [b"get ", b"version ", b"stats "];
        let is_request = requests.iter().any(|request| head.starts_with(request));
        let lines = if is_request { 2 } else { 1 };
        let first = memchr::memchr_iter(b'\n', &all).nth(lines - 1).unwrap() + 1;
        let sent = if random.one_in(2) { first } else { all.len() };
        let _ = stream.write_all(&all[..sent]);
        let (mut said, mut piece) = (Vec::new(), [0; 4096]);
        let end = loop {
            match stream.read(&mut piece) {
                Ok(0) => break None,
                Ok(count) => said.extend_from_slice(&piece[..count]),
                Err(error) => break Some(error.kind()),
            }
        };
        // A reset is what comes of bytes that nobody read.
        let closed = match end {
            None => true,
            Some(kind) => sent > first && kind == ErrorKind::ConnectionReset,
        };
        assert!(
            closed,
            "not closed after {}: {end:?}",
            all[..sent].escape_ascii()
        );
        let said = String::from_utf8_lossy(&said);
        let refused = "CLIENT_ERROR this port speaks memcached's text protocol, not";
        let told = said
            .lines()
            .last()
            .is_some_and(|line| line.starts_with(refused));
        assert!(
            told && said.lines().count() == lines || said.is_empty(),
            "{said:?}"
        );
    }
    let mut client = daemon.client();
    assert_eq!(client.get("2.1").unwrap(), None);
    assert_eq!(client.get("a").unwrap(), None);
    assert_eq!(client.get("1.1").unwrap(), None);
    assert_eq!(client.get("2.9").unwrap().as_deref(), Some("9"));
    let stats = client.stats("").unwrap();
    assert_eq!(stats["errors_foreign_protocol"], rounds.to_string());
    // Of so many refusals only some are logged: each protocol's comes when there is room.
    for (words, cause) in [
        (
            &b"\x80\x01\r\n"[..],
            "memcached's binary protocol, which SASL needs too: closing",
        ),
        (b"\x16\x03\x01\r\n", "TLS on a port without it: closing"),
        (b"GET / HTTP/1.1\r\n", "refused: HTTP: closing"),
    ] {
        until(cause, PATIENCE, || {
            let mut stream = TcpStream::connect(daemon.addr()).unwrap();
            stream.write_all(words).unwrap();
            drain(&mut stream);
            daemon.log().contains(cause).then_some(())
        });
    }
}

/// This daemon is reached from this machine only, not by UDP, and its files are its own.
pub(crate) fn assert_private(pid: u32, data: &Path) {
    let inodes: Vec<String> = fs::read_dir(format!("/proc/{pid}/fd"))
        .unwrap()
        .filter_map(|entry| fs::read_link(entry.unwrap().path()).ok())
        .filter_map(|link| {
            Some(
                link.to_str()?
                    .strip_prefix("socket:[")?
                    .trim_end_matches(']')
                    .to_owned(),
            )
        })
        .collect();
    let ours = |table: &str| -> Vec<String> {
        let text = fs::read_to_string(format!("/proc/net/{table}")).unwrap();
        let of_us = |line: &&str| {
            let words: Vec<_> = line.split_whitespace().collect();
            words
                .get(9)
                .is_some_and(|inode| inodes.iter().any(|it| it == inode))
        };
        text.lines()
            .skip(1)
            .filter(of_us)
            .map(str::to_owned)
            .collect()
    };
    for table in ["udp", "udp6", "raw", "tcp6"] {
        assert!(ours(table).is_empty(), "{table}: {:?}", ours(table));
    }
    let listening = ours("tcp");
    assert!(
        !listening.is_empty() && listening.iter().all(|line| line.contains(" 0100007F:")),
        "{listening:?}"
    );
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(data), 0o700);
    for entry in fs::read_dir(data).unwrap() {
        let path = entry.unwrap().path();
        assert_eq!(mode(&path), 0o600, "{}", path.display());
    }
}

#[test]
fn the_defaults_reach_no_other_machine_and_no_other_user() {
    let home = Home::new(Config::default().with("server", "listen", "\"127.0.0.1:0\""));
    let daemon = home.start();
    assert_private(daemon.pid(), &home.data());
    let defaults = Config::default().with("server", "listen", "\"0.0.0.0:0\"");
    let (code, _, error) = Home::new(defaults).run(&[]);
    assert_eq!(code, Some(78));
    assert!(
        error.contains("can be reached from other machines"),
        "{error}"
    );
}

#[test]
fn a_unix_socket_has_its_mode() {
    for mode in [0o600, 0o660, 0o666] {
        let mut home = Home::new(Config::standard());
        let socket = home.path("socket");
        home.reconfigure(|config| {
            let unix = quoted(&PathBuf::from(format!("unix:{}", socket.display())));
            config.set("server", "listen", &format!("[{unix}, \"127.0.0.1:0\"]"));
            config.set("server", "unix_mode", &format!("\"{mode:04o}\""));
        });
        let daemon = home.start();
        let found = fs::metadata(&socket).unwrap();
        assert!(found.file_type().is_socket());
        assert_eq!(found.permissions().mode() & 0o777, mode);
        ask(
            &mut UnixStream::connect(&socket).unwrap(),
            b"get 2.1\r\n",
            "END\r\n",
        );
        // The mask was put back: data files are not closed to their owner.
        assert_eq!(daemon.client().set("2.1", "1").unwrap(), "STORED");
        daemon.term();
        until("the socket is gone", PATIENCE, || {
            (!socket.exists()).then_some(())
        });
    }
}
