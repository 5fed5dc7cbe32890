//! The tree can be seen while it lives.

use std::time::Duration;

use actors::supervise::{Child, ChildPolicy, Env, Root, SetPolicy, Status, Supervisor};

use crate::actors::{Diary, Msg, Puppet, SOON, Strings, hardy, sum, until};

#[tokio::test]
async fn the_whole_tree_is_shown_sorted_by_path() {
    let diary = Diary::default();
    let (a, address) = Child::node::<Puppet>("a", hardy(), Strings::new("a", &diary));
    let (b, _) = Child::node::<Puppet>("b", hardy(), Strings::new("b", &diary));
    let inner = Supervisor::new(SetPolicy::default()).child(b).child(a);
    let outer = Supervisor::new(SetPolicy::default()).child(Child::supervisor(
        "inner",
        ChildPolicy::supervisor(),
        inner,
    ));
    let root = Root::start("root", outer, Env::default()).await.unwrap();
    sum(&address).await;
    let nodes = root.tree().snapshot();
    let shown: Vec<_> = nodes.iter().map(|node| (node.path.as_str(), node.kind)).collect();
    assert_eq!(
        shown,
        [
            ("root", "supervisor"),
            ("root/inner", "supervisor"),
            ("root/inner/a", "puppet"),
            ("root/inner/b", "puppet"),
        ]
    );
    assert!(nodes.iter().all(|node| node.status == Status::Running));
    let json = serde_json::to_value(&nodes[2]).unwrap();
    assert_eq!(json["path"], "root/inner/a");
    assert_eq!(json["traffic"]["handled"], 1);
    assert_eq!(json["status"], "running");
    let tree = root.tree().clone();
    root.stop().await;
    assert!(tree.snapshot().iter().all(|node| node.status == Status::Stopped));
}

#[tokio::test]
async fn the_running_handler_is_shown() {
    let (child, address) =
        Child::node::<Puppet>("a", hardy(), Strings::new("a", &Diary::default()));
    let supervisor = Supervisor::new(SetPolicy::default()).child(child);
    let root = Root::start("root", supervisor, Env::default()).await.unwrap();
    let busy = Duration::from_millis(300);
    address.try_cast(Msg::Sleep(busy)).unwrap();
    let info = until(root.tree(), "root/a", |info| {
        info.handling.is_some_and(|handling| handling.label == "sleep")
    })
    .await;
    assert_eq!(info.depth, 1);
    sum(&address).await;
    let info = until(root.tree(), "root/a", |info| info.handling.is_none()).await;
    assert!(info.slowest >= busy && info.busy >= info.slowest);
    root.stop().await;
}

#[tokio::test]
async fn a_killed_supervisor_comes_back_with_its_children() {
    let diary = Diary::default();
    let (a, address) = Child::node::<Puppet>("a", hardy(), Strings::new("a", &diary));
    let inner = Supervisor::new(SetPolicy::default()).child(a);
    let outer = Supervisor::new(SetPolicy::default()).child(Child::supervisor(
        "inner",
        ChildPolicy { shutdown: ChildPolicy::supervisor().shutdown, ..hardy() },
        inner,
    ));
    let root = Root::start("root", outer, Env::default()).await.unwrap();
    address.try_cast(Msg::Sleep(SOON)).unwrap();
    address.try_cast(Msg::Add(4)).unwrap();
    assert!(root.tree().kill("root/inner"));
    assert_eq!(sum(&address).await, 4);
    assert_eq!(root.tree().get("root/inner").unwrap().restarts, 1);
    assert!(!root.tree().kill("root/nobody"));
    root.stop().await;
}
