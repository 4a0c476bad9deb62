//! The build script's judgement of what ptxas says: spills, stack frames and serialised wgmma fail the build.

#[path = "../build/judge.rs"]
mod judge;

use judge::Exceptions;

fn said(frame: usize, stores: usize, loads: usize) -> String {
    format!(
        "ptxas info    : Compiling entry function 'other' for 'sm_90a'
ptxas info    : Function properties for other
    0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads
ptxas info    : Used 168 registers, used 2 barriers
ptxas info    : Function properties for product
    {frame} bytes stack frame, {stores} bytes spill stores, {loads} bytes spill loads
ptxas info    : Used 168 registers, used 2 barriers, {frame} bytes cumulative stack size
"
    )
}

fn judge(exceptions: &str, said: &str) -> Result<(), String> {
    Exceptions::parse(exceptions)?.judge(said, "90a")
}

#[test]
fn spills_and_stack_frames_fail() {
    assert_eq!(judge("", &said(0, 0, 0)), Ok(()));
    for (frame, stores, loads) in [(376, 916, 596), (8, 0, 0), (10, 0, 0), (0, 4, 0), (0, 0, 4)] {
        let why = judge("", &said(frame, stores, loads)).unwrap_err();
        assert!(why.starts_with(&format!("product for sm_90a: {frame} bytes stack frame")), "{why}");
    }
}

#[test]
fn an_exception_has_a_kernel_an_architecture_and_a_reason() {
    let spills = said(16, 28, 20);
    assert_eq!(
        judge("# a comment\n\nproduct 90a measured, the spill is outside of the loop\n", &spills),
        Ok(())
    );
    assert!(judge("product 80 for another architecture\n", &spills).is_err());
    assert!(judge("other 90a for another kernel\n", &spills).is_err());
    assert!(judge("product 90a\n", &said(0, 0, 0)).unwrap_err().contains("kernel architecture reason"));
}

#[test]
fn serialised_wgmma_fails_whatever_its_cause() {
    let causes = [
        "(C7510) Potential Performance Loss: wgmma.mma_async instructions are serialized due to the presence of \
         Extern calls in the function 'product'",
        "(C7514) Potential Performance Loss: wgmma.mma_async instructions are serialized due to non wgmma \
         instructions reading accumulator registers of  a wgmma between start and end of the pipeline stage in the \
         function 'product'",
    ];
    for cause in causes {
        let text = format!("ptxas info    : {cause}\n{}", said(0, 0, 0));
        let why = judge("product 90a spills may be excused, this not\n", &text).unwrap_err();
        assert!(why.contains("for sm_90a") && why.contains("'product'"), "{why}");
    }
    let harmless = "ptxas info    : (C7519) warpgroup.arrive is injected in around line 203 by compiler\n";
    assert_eq!(judge("", harmless), Ok(()));
}
