use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

const PATIENCE: Duration = Duration::from_secs(5);

/// Whether something listens. A broker that wants to know who asks does not tell its name.
pub(super) fn listens(address: SocketAddr) -> Result<(), String> {
    TcpStream::connect_timeout(&address, PATIENCE).map(drop).map_err(|error| error.to_string())
}

/// Whether the broker of this cluster answers there.
pub(super) fn is_cluster(address: SocketAddr, cluster: &str) -> Result<(), String> {
    let answer = ask(address).map_err(|error| error.to_string())?;
    let names_itself = answer.windows(cluster.len()).any(|window| window == cluster.as_bytes());
    names_itself.then_some(()).ok_or_else(|| "another broker answers on its port".to_owned())
}

/// The answer to a request for metadata about no topic, which names the cluster.
fn ask(address: SocketAddr) -> std::io::Result<Vec<u8>> {
    // Length; metadata (3) in version 2, correlation id 1, no client id; an array of no topics.
    const REQUEST: [u8; 18] = [0, 0, 0, 14, 0, 3, 0, 2, 0, 0, 0, 1, 0xff, 0xff, 0, 0, 0, 0];
    let mut stream = TcpStream::connect_timeout(&address, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.write_all(&REQUEST)?;
    let mut length = [0; 4];
    stream.read_exact(&mut length)?;
    // A broker without topics says little; somebody else may say anything.
    let mut answer = vec![0; u32::from_be_bytes(length).min(1 << 20) as usize];
    stream.read_exact(&mut answer)?;
    Ok(answer)
}
