//! Who may use the server: the text of the users file to [`Users`], and whether a password is
//! right.
//!
//! Invariant: [`Users::allow`] takes the same time and memory whoever asks - a known user, an
//! unknown one, a right or a wrong password: each entry is looked at, one hash is made, with the
//! cost that all entries have. It takes tens of milliseconds on purpose, so no thread that serves
//! clients calls it. Nothing here does I/O; `server` reads the file, `tools` makes its lines.

use std::fmt;

use argon2::{Algorithm, Argon2, Params, Version};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD as BASE64;
use subtle::{Choice, ConditionallySelectable as _, ConstantTimeEq as _};

use crate::limits::{PASSWORD_BYTES_MAX, USER_BYTES_MAX};

/// The cost of a hash: 19 MiB, twice over, as OWASP advises for Argon2id.
const COST: (u32, u32, u32) = (19 << 10, 2, 1);
/// What each hash of that cost begins with, in the form that all implementations print.
const FORM: &str = "$argon2id$v=19$m=19456,t=2,p=1$";
/// The length of a salt, in bytes.
pub const SALT_BYTES: usize = 16;
const HASH_BYTES: usize = 32;

/// A user's name, filled up with zeros: all are compared alike.
type Name = [u8; USER_BYTES_MAX];

/// The users and their hashed passwords.
#[derive(Clone, Default)]
pub struct Users(Vec<User>);

#[derive(Clone)]
struct User {
    name: Name,
    salt: [u8; SALT_BYTES],
    hash: [u8; HASH_BYTES],
}

/// Why a text is no users file, or a name or password cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UsersError {
    /// A line that is not `user:hash`.
    #[error(
        "line {line} is not USER:HASH as `storage_server passwd USER` prints it ({FORM}...): \
         make it again"
    )]
    Line {
        /// The line's number, from 1.
        line: usize,
    },
    /// A user with two lines.
    #[error("line {line} has a user that an earlier line has: remove one of them")]
    Twice {
        /// The line's number, from 1.
        line: usize,
    },
    /// Nobody could ever come in.
    #[error("it has no user: add the line that `storage_server passwd USER` prints")]
    Empty,
    /// A name that cannot be sent, or not be told from the hash.
    #[error(
        "a user's name has 1 to {USER_BYTES_MAX} bytes, none of them a space, a control character \
         or a colon"
    )]
    BadName,
    /// A password that cannot be sent.
    #[error(
        "a password has 1 to {PASSWORD_BYTES_MAX} bytes, none of them a space or a control \
         character: clients send it as one word"
    )]
    BadPassword,
}

impl Users {
    /// Reads the text of a users file: a line a user, empty lines and those that begin with `#`
    /// left out.
    pub fn parse(text: &str) -> Result<Self, UsersError> {
        let mut users: Vec<User> = Vec::new();
        for (number, line) in text.lines().enumerate() {
            let line_number = number + 1;
            if line.trim().is_empty() || line.starts_with('#') {
                continue;
            }
            let user = User::parse(line).ok_or(UsersError::Line { line: line_number })?;
            if users.iter().any(|other| other.name == user.name) {
                return Err(UsersError::Twice { line: line_number });
            }
            users.push(user);
        }
        if users.is_empty() {
            return Err(UsersError::Empty);
        }
        Ok(Self(users))
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.0.len()
    }

    /// True if there is such a user with this password.
    pub fn allow(&self, name: &[u8], password: &[u8]) -> bool {
        // No user has the empty name.
        let wanted = padded(name).unwrap_or([0; USER_BYTES_MAX]);
        let mut found = Choice::from(0);
        // For an unknown user a hash is made and compared, too: that of nobody.
        let (mut salt, mut expected) = ([0; SALT_BYTES], [0; HASH_BYTES]);
        for user in &self.0 {
            let same = user.name.as_slice().ct_eq(&wanted);
            salt.conditional_assign(&user.salt, same);
            expected.conditional_assign(&user.hash, same);
            found |= same;
        }
        let Some(hash) = hash(password, &salt) else {
            return false;
        };
        (found & hash.as_slice().ct_eq(&expected)).into()
    }
}

impl fmt::Debug for Users {
    /// Without names and hashes: they belong into no log.
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "Users({})", self.0.len())
    }
}

impl User {
    fn parse(line: &str) -> Option<Self> {
        let (name, hash) = line.trim_end().split_once(':')?;
        let (salt, hash) = hash.strip_prefix(FORM)?.split_once('$')?;
        Some(Self {
            name: padded(name.as_bytes())?,
            salt: BASE64.decode(salt).ok()?.try_into().ok()?,
            hash: BASE64.decode(hash).ok()?.try_into().ok()?,
        })
    }
}

/// The line of a users file for this user and password. `salt` must be random.
pub fn line(name: &str, password: &[u8], salt: [u8; SALT_BYTES]) -> Result<String, UsersError> {
    check_name(name)?;
    if !is_word(password, PASSWORD_BYTES_MAX) {
        return Err(UsersError::BadPassword);
    }
    let hash = hash(password, &salt).ok_or(UsersError::BadPassword)?;
    let (salt, hash) = (BASE64.encode(salt), BASE64.encode(hash));
    Ok(format!("{name}:{FORM}{salt}${hash}"))
}

/// Says what is wrong with a user's name.
pub fn check_name(name: &str) -> Result<(), UsersError> {
    padded(name.as_bytes())
        .map(|_| ())
        .ok_or(UsersError::BadName)
}

/// The text of a users file with `line` in place of this user's, or at its end.
pub fn with_line(text: &str, name: &str, line: &str) -> String {
    let of_user = |old: &&str| old.split_once(':').is_some_and(|(user, _)| user == name);
    let mut lines: Vec<&str> = text.lines().collect();
    match lines.iter().position(of_user) {
        Some(at) => lines.splice(at..=at, [line]).for_each(drop),
        None => lines.push(line),
    }
    lines.join("\n") + "\n"
}

/// The name, filled up; `None` if it cannot be one.
fn padded(name: &[u8]) -> Option<Name> {
    if !is_word(name, USER_BYTES_MAX) || name.contains(&b':') || name.starts_with(b"#") {
        return None;
    }
    let mut padded = [0; USER_BYTES_MAX];
    padded.get_mut(..name.len())?.copy_from_slice(name);
    Some(padded)
}

/// True if clients can send it as one word.
fn is_word(text: &[u8], bytes_max: usize) -> bool {
    let in_word = |byte: &u8| *byte > b' ' && *byte != 0x7f;
    (1..=bytes_max).contains(&text.len()) && text.iter().all(in_word)
}

/// `None` would be a defect of the constants above: nobody is let in then.
fn hash(password: &[u8], salt: &[u8; SALT_BYTES]) -> Option<[u8; HASH_BYTES]> {
    let (memory, passes, lanes) = COST;
    let params = Params::new(memory, passes, lanes, Some(HASH_BYTES)).ok()?;
    let mut hash = [0; HASH_BYTES];
    Argon2::new(Algorithm::Argon2id, Version::V0x13, params)
        .hash_password_into(password, salt, &mut hash)
        .ok()?;
    Some(hash)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the reference implementation makes of the same.
    const REFERENCE: &str = "alice:$argon2id$v=19$m=19456,t=2,p=1$MDEyMzQ1Njc4OWFiY2RlZg$\
                             8qPpaWig0H31wvibKAgpght2Ry2M8rtRQYtZ93ooMus";

    #[test]
    fn a_hash_is_what_other_implementations_make() {
        let line = line("alice", b"secret", *b"0123456789abcdef").unwrap();
        assert_eq!(line, REFERENCE);
    }

    #[test]
    fn only_the_right_password_of_a_known_user_is_allowed() {
        let text = format!(
            "# users\n\n{}\r\n{}\n",
            line("alice", b"secret", [1; 16]).unwrap(),
            line("bob", b"other", [2; 16]).unwrap()
        );
        let users = Users::parse(&text).unwrap();
        assert_eq!(users.count(), 2);
        let long = "a".repeat(USER_BYTES_MAX + 1);
        for (name, password, allowed) in [
            ("alice", "secret", true),
            ("bob", "other", true),
            ("alice", "other", false),
            ("bob", "secret", false),
            ("alice", "secret1", false),
            ("carol", "secret", false),
            ("", "", false),
            ("alice\0", "secret", false),
            (long.as_str(), "secret", false),
        ] {
            let found = users.allow(name.as_bytes(), password.as_bytes());
            assert_eq!(found, allowed, "{name} {password}");
        }
        assert_eq!(format!("{users:?}"), "Users(2)");
    }

    #[test]
    fn each_bad_line_is_named() {
        let good = line("alice", b"secret", [1; 16]).unwrap();
        for (text, error) in [
            (String::new(), UsersError::Empty),
            ("# alice\n".to_owned(), UsersError::Empty),
            (
                format!("{good}\nbob:secret\n"),
                UsersError::Line { line: 2 },
            ),
            (format!("{good}\n{good}\n"), UsersError::Twice { line: 2 }),
            (good.replace("t=2", "t=1"), UsersError::Line { line: 1 }),
            (
                good.replace("argon2id", "argon2i"),
                UsersError::Line { line: 1 },
            ),
            (good.replace("alice", "a b"), UsersError::Line { line: 1 }),
            (good.replace("alice", ""), UsersError::Line { line: 1 }),
            (
                good[..good.len() - 1].to_owned(),
                UsersError::Line { line: 1 },
            ),
        ] {
            assert_eq!(Users::parse(&text).unwrap_err(), error, "{text}");
        }
    }

    #[test]
    fn a_line_takes_the_place_of_the_users_old_one() {
        assert_eq!(with_line("", "b", "b:2"), "b:2\n");
        assert_eq!(
            with_line("a:1\n# b\nb:1\nbb:1", "b", "b:2"),
            "a:1\n# b\nb:2\nbb:1\n"
        );
    }

    #[test]
    fn names_and_passwords_are_one_word_each() {
        for name in [
            "",
            "a b",
            "a:b",
            "#a",
            "a\n",
            &"x".repeat(USER_BYTES_MAX + 1),
        ] {
            assert_eq!(
                line(name, b"x", [0; 16]),
                Err(UsersError::BadName),
                "{name}"
            );
        }
        for password in ["", "a b", "a\r", &"x".repeat(PASSWORD_BYTES_MAX + 1)] {
            let made = line("a", password.as_bytes(), [0; 16]);
            assert_eq!(made, Err(UsersError::BadPassword), "{password}");
        }
        let longest = ("n".repeat(USER_BYTES_MAX), "p".repeat(PASSWORD_BYTES_MAX));
        let text = line(&longest.0, longest.1.as_bytes(), [3; 16]).unwrap();
        let users = Users::parse(&text).unwrap();
        assert!(users.allow(longest.0.as_bytes(), longest.1.as_bytes()));
    }
}
