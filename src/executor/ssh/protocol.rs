//! The protocol of SSH agents (draft-ietf-sshm-ssh-agent), as far as a build step may speak it: listing keys and signing.

use std::io::{self, Read, Write};

use super::key::PrivateKey;

const FAILURE: u8 = 5;
const REQUEST_IDENTITIES: u8 = 11;
const IDENTITIES_ANSWER: u8 = 12;
const SIGN_REQUEST: u8 = 13;
const SIGN_RESPONSE: u8 = 14;

/// The longest message that OpenSSH takes.
const MAX_MESSAGE: u32 = 256 << 10;

/// What answers the questions of one connection.
pub(super) enum Answers<'a> {
    /// Our own keys.
    Keys(&'a [PrivateKey]),
    /// Another agent, by a connection to it.
    Agent(&'a mut dyn Agent),
}

/// A connection to an agent.
pub(super) trait Agent: Read + Write {}

impl<T: Read + Write> Agent for T {}

/// Answers all questions of a client, until it has no more.
pub(super) fn serve(client: &mut (impl Read + Write), mut answers: Answers<'_>) -> io::Result<()> {
    while let Some(request) = read_message(client)? {
        let answer = match (request.first(), &mut answers) {
            (Some(&(REQUEST_IDENTITIES | SIGN_REQUEST)), Answers::Agent(agent)) => {
                write_message(*agent, &request)?;
                read_message(*agent)?.ok_or(io::ErrorKind::UnexpectedEof)?
            }
            (Some(&REQUEST_IDENTITIES), Answers::Keys(keys)) => identities(keys),
            (Some(&SIGN_REQUEST), Answers::Keys(keys)) => sign(keys, &request[1..]).unwrap_or_else(|| vec![FAILURE]),
            // Nothing else is a step's business.
            _ => vec![FAILURE],
        };
        write_message(client, &answer)?;
    }
    Ok(())
}

fn read_message(from: &mut (impl Read + ?Sized)) -> io::Result<Option<Vec<u8>>> {
    let mut length = [0; 4];
    match from.read_exact(&mut length) {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        other => other?,
    }
    let length = u32::from_be_bytes(length);
    if length == 0 || length > MAX_MESSAGE {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let mut message = vec![0; length as usize];
    from.read_exact(&mut message)?;
    Ok(Some(message))
}

fn write_message(to: &mut (impl Write + ?Sized), message: &[u8]) -> io::Result<()> {
    let length = u32::try_from(message.len()).map_err(|_| io::ErrorKind::InvalidData)?;
    to.write_all(&[&length.to_be_bytes(), message].concat())
}

fn identities(keys: &[PrivateKey]) -> Vec<u8> {
    let mut answer = vec![IDENTITIES_ANSWER];
    answer.extend((keys.len() as u32).to_be_bytes());
    for key in keys {
        put(&mut answer, key.public_blob());
        put(&mut answer, key.comment().as_bytes());
    }
    answer
}

/// A signature by the key that the request names, if it is one of ours.
fn sign(keys: &[PrivateKey], request: &[u8]) -> Option<Vec<u8>> {
    let mut rest = request;
    let (blob, data) = (take(&mut rest)?, take(&mut rest)?);
    let flags = u32::from_be_bytes(rest.get(..4)?.try_into().ok()?);
    let key = keys.iter().find(|key| key.public_blob() == blob)?;
    let (algorithm, signature) = key.sign(data, flags)?;
    let mut inner = Vec::new();
    put(&mut inner, algorithm.as_bytes());
    put(&mut inner, &signature);
    let mut answer = vec![SIGN_RESPONSE];
    put(&mut answer, &inner);
    Some(answer)
}

/// Writes a string of the SSH protocol (RFC 4251, section 5).
pub(super) fn put(to: &mut Vec<u8>, text: &[u8]) {
    to.extend((text.len() as u32).to_be_bytes());
    to.extend(text);
}

/// Reads a string of the SSH protocol.
pub(super) fn take<'a>(from: &mut &'a [u8]) -> Option<&'a [u8]> {
    let (length, rest) = from.split_at_checked(4)?;
    let length = u32::from_be_bytes(length.try_into().ok()?) as usize;
    let (text, rest) = rest.split_at_checked(length)?;
    *from = rest;
    Some(text)
}
