fn steps() {
    fail_point!("listed");
    fail_point!("twice");
    fail_point!("twice");
    fail_point!("double");
    fail_point!("unlisted");
}
