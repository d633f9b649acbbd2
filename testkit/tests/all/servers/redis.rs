use pillarbox_testkit::servers::{
    ChildServer, RedisCluster, RedisSentinels, RedisServer, ServerErrorKind, free_port,
};

#[test]
fn answers_at_its_url_and_forgets_without_append_only() {
    let redis = RedisServer::start().unwrap();
    assert_eq!(redis.url(), format!("redis://{}/", redis.address()));
    redis.command(&["SET", "greeting", "hello\r\nthere"]).unwrap();
    assert_eq!(redis.command(&["GET", "greeting"]).unwrap(), "hello\r\nthere");
    redis.kill();
    assert_eq!(redis.command(&["PING"]).unwrap_err().kind(), ServerErrorKind::NotRunning);
    redis.restart().unwrap();
    assert_eq!(redis.command(&["GET", "greeting"]).unwrap(), "");
    assert_eq!(redis.command(&["NOSUCH"]).unwrap_err().kind(), ServerErrorKind::Refused);
}

#[test]
fn keeps_what_it_answered_with_append_only() {
    let redis = RedisServer::options().append_only().start().unwrap();
    let (address, before) = (redis.address(), redis.process().process_id());
    for number in 0..100 {
        redis.command(&["RPUSH", "list", &number.to_string()]).unwrap();
    }
    redis.restart().unwrap();
    assert_eq!(redis.address(), address);
    assert_ne!(redis.process().process_id(), before);
    assert_eq!(redis.command(&["LLEN", "list"]).unwrap(), "100");
}

#[test]
fn asks_for_its_password_and_never_shows_it() {
    let redis = RedisServer::options().password("secret-word").start().unwrap();
    assert_eq!(redis.url(), format!("redis://:secret-word@{}/", redis.address()));
    assert_eq!(redis.command(&["PING"]).unwrap(), "PONG");
    let shown = format!("{redis:?} {:?}", RedisServer::options().password("secret-word"));
    assert!(!shown.contains("secret-word"), "{shown}");
}

#[test]
fn a_bad_argument_shows_the_log() {
    let error = RedisServer::options().argument("--no-such-setting").argument("1").start().unwrap_err();
    assert_eq!(error.kind(), ServerErrorKind::NotReady);
    assert!(error.to_string().contains("Bad directive"), "{error}");
}

#[test]
fn pauses_and_goes_on() {
    use std::io::{ErrorKind, Read as _, Write as _};
    let redis = RedisServer::start().unwrap();
    let mut stream = std::net::TcpStream::connect(redis.address()).unwrap();
    stream.set_read_timeout(Some(std::time::Duration::from_millis(100))).unwrap();
    redis.pause().unwrap();
    stream.write_all(b"PING\r\n").unwrap();
    let mut answer = [0; 7];
    let silence = stream.read_exact(&mut answer).unwrap_err();
    assert!(matches!(silence.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut), "{silence}");
    redis.resume().unwrap();
    stream.set_read_timeout(Some(std::time::Duration::from_secs(20))).unwrap();
    stream.read_exact(&mut answer).unwrap();
    assert_eq!(&answer, b"+PONG\r\n");
    redis.pause().unwrap();
    redis.restart().unwrap();
    assert_eq!(redis.command(&["PING"]).unwrap(), "PONG");
}

#[test]
fn a_replica_has_the_data_of_its_primary() {
    let primary = RedisServer::options().password("secret-word").start().unwrap();
    primary.command(&["SET", "key", "value"]).unwrap();
    let replica = RedisServer::options().replica_of(&primary).start().unwrap();
    assert_eq!(replica.command(&["GET", "key"]).unwrap(), "value");
    primary.command(&["SET", "key", "later"]).unwrap();
    assert_eq!(primary.command(&["WAIT", "1", "10000"]).unwrap(), "1");
    assert_eq!(replica.command(&["GET", "key"]).unwrap(), "later");
}

#[test]
fn a_cluster_serves_all_slots_and_survives_a_restart() {
    let cluster = RedisCluster::start().unwrap();
    assert_eq!(cluster.urls().len(), 3);
    // `foo` lies in slot 12182, which is the last third.
    assert!(
        cluster.nodes()[0].command(&["SET", "foo", "1"]).unwrap_err().to_string().contains("MOVED 12182")
    );
    cluster.nodes()[2].command(&["SET", "foo", "1"]).unwrap();
    cluster.nodes()[2].restart().unwrap();
    cluster.wait_until_ok().unwrap();
}

#[test]
fn sentinels_replace_a_killed_primary() {
    let set = RedisSentinels::start_with(&RedisServer::options().password("secret-word")).unwrap();
    let old = set.primary().unwrap();
    assert_eq!(old.address(), set.nodes()[0].address());
    old.kill();
    let new = set.wait_for_primary_other_than(old.address()).unwrap();
    new.command(&["SET", "key", "value"]).unwrap();
    old.restart().unwrap();
    // On a busy machine the new one may be silent for so long that they change their mind again.
    super::eventually("all others follow the primary", || {
        let primary = set.primary().unwrap().address();
        let mut others = set.nodes().iter().filter(|node| node.address() != primary);
        others.all(|node| node.command(&["ROLE"]).is_ok_and(|role| role.starts_with("slave")))
    });
}

#[tokio::test]
async fn many_start_side_by_side_inside_a_runtime() {
    let starts: Vec<_> = (0..8).map(|_| tokio::task::spawn_blocking(RedisServer::start)).collect();
    let mut servers = vec![RedisServer::start().unwrap()];
    for start in starts {
        servers.push(start.await.unwrap().unwrap());
    }
    let mut ports: Vec<u16> = servers.iter().map(|server| server.address().port()).collect();
    ports.sort_unstable();
    ports.dedup();
    assert_eq!(ports.len(), 9);
    assert!(!ports.contains(&free_port().unwrap()));
}

#[test]
fn values_can_be_shared_between_threads() {
    fn assert<T: Send + Sync + 'static>() {}
    assert::<RedisServer>();
    assert::<RedisCluster>();
    assert::<RedisSentinels>();
    assert::<ChildServer>();
}
