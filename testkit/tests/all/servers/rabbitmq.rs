use std::sync::Arc;

use pillarbox_testkit::servers::{RabbitMqNode, ServerErrorKind};

#[test]
fn tests_share_a_node_and_have_virtual_hosts_of_their_own() {
    let node = RabbitMqNode::shared().unwrap();
    assert!(std::ptr::eq(node, RabbitMqNode::shared().unwrap()));
    // More than are made at once.
    let hosts: Vec<_> = (0..10).map(|_| node.virtual_host().unwrap()).collect();
    let listed = node.control(&["list_vhosts"]).unwrap();
    for host in &hosts {
        assert!(listed.lines().any(|line| line == host.name()), "{} is not in {listed}", host.name());
        assert_eq!(host.url(), format!("amqp://guest:guest@{}/{}", node.address(), host.name()));
    }
    let permissions = node.control(&["list_permissions", "--vhost", hosts[9].name()]).unwrap();
    assert!(permissions.contains("guest\t.*\t.*\t.*"), "{permissions}");
    let error = node.control(&["no_such_command"]).unwrap_err();
    assert_eq!(error.kind(), ServerErrorKind::Refused);
}

#[tokio::test]
async fn a_node_of_its_own_is_killed_and_comes_back_with_its_data() {
    let node =
        tokio::task::spawn_blocking(|| RabbitMqNode::start_with("heartbeat = 7")).await.unwrap().unwrap();
    let node = Arc::new(node);
    assert_eq!(node.url(), format!("amqp://guest:guest@{}/%2f", node.address()));
    let set = node.control(&["eval", "application:get_env(rabbit, heartbeat)."]).unwrap();
    assert_eq!(set.trim(), "{ok,7}");
    let host = node.virtual_host().unwrap().name().to_owned();
    node.pause().unwrap();
    node.resume().unwrap();
    let restarting = Arc::clone(&node);
    tokio::task::spawn_blocking(move || restarting.restart()).await.unwrap().unwrap();
    assert!(node.control(&["list_vhosts"]).unwrap().contains(&host));
    node.kill();
    assert_eq!(node.process().process_id(), None);
}
