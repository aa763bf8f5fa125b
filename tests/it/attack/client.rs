//! A client that sends any bytes it likes.

use std::io::{self, Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::Duration;

/// No answer takes longer, unless something is wrong.
const PATIENCE: Duration = Duration::from_secs(10);

/// Connects to a port of this host.
pub fn connect(port: u16) -> io::Result<TcpStream> {
    let address = SocketAddr::from(([127, 0, 0, 1], port));
    let stream = TcpStream::connect_timeout(&address, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    Ok(stream)
}

/// Sends bytes on a connection of their own and gives all that comes back, up to the end or a
/// reset.
pub fn send(port: u16, bytes: impl AsRef<[u8]>) -> io::Result<String> {
    let mut stream = connect(port)?;
    // A server that has heard enough may have closed already.
    let _ = stream.write_all(bytes.as_ref());
    Ok(read_all(&mut stream))
}

/// The same, and says that nothing more will come.
pub fn send_and_end(port: u16, bytes: impl AsRef<[u8]>) -> io::Result<String> {
    let mut stream = connect(port)?;
    let _ = stream.write_all(bytes.as_ref());
    let _ = stream.shutdown(Shutdown::Write);
    Ok(read_all(&mut stream))
}

/// Reads to the end; an error ends it as well.
pub fn read_all(stream: &mut TcpStream) -> String {
    let mut bytes = Vec::new();
    let mut chunk = [0; 16 * 1024];
    while let Ok(read @ 1..) = stream.read(&mut chunk) {
        bytes.extend_from_slice(&chunk[..read]);
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// The status of an answer; `None` when it is no answer.
pub fn status(answer: &str) -> Option<u16> {
    let rest = answer.strip_prefix("HTTP/1.")?;
    rest.split(' ').nth(1)?.parse().ok()
}
