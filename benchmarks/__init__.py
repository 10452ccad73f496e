"""Speed and memory as ratios to a peer, both measured in one run (``tools/benchmark.py``).

A case is two functions that prepare and one sentence about what is compared. To add one, write it
into a module of this folder and name that module in ``catalog.GROUPS``::

    def ours() -> Run:
        import torch  # inside: the catalogue is read without importing anything heavy
        model = ...   # preparing is not measured
        return lambda: model(frames)  # this call is

    CASES = (
        Case(
            name="frame_segmenter",
            about="one frame of 480x640 through the R50 segmenter",
            peer="Mask2Former of transformers",
            bars={"cpu": 1.2},
            ours=ours,
            theirs=theirs,
            needs=(Package("transformers", install="pip install vidseg[bench]"),),
        ),
    )

``bars`` says what is measured and what is promised: ``"cpu"`` is CPU seconds of the call, its ratio
is peer / ours and should be at least the bar; ``"peak"`` is the largest resident memory in MiB, its
ratio is ours / peer and should be at most the bar. Without ``"peak"`` both sides alternate in this
process; with it every repetition of either side has a process of its own, where preparing counts
for the memory but not for the time. A side that starts processes itself is charged for them.
Growth is measured with ourselves as the peer: ``ours`` on the long video, ``theirs`` on the short.
"""
