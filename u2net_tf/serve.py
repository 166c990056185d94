r"""Serves a trained model over HTTP, with a web page.

  python -m u2net_tf.serve --model=organs.u2net --port=8000

The page at http://127.0.0.1:8000 accepts an image by drag and drop and shows it with
its segmentation. Programs send images to /segment:

  curl --form image=@scan.nii.gz --output labels.nii.gz \
      'http://127.0.0.1:8000/segment?domain=NAME'

GET /domains lists domains, modalities and classes. Images are processed one at a time;
nothing is kept. Needs `pip install 'u2net-tf[serve]'`.
"""

from u2net_tf import command
from u2net_tf.config.serving import ServeConfig
from u2net_tf.wording import first_few


def main(config: ServeConfig) -> None:
    """Serves until a signal ends it."""
    from u2net_tf.inference.backends.load_segmenter import load
    from u2net_tf.serving import server

    server.require_packages()
    with server.listen(config.host, config.port) as listener:
        model = load(config.model, runtime=config.runtime, **dict(config.windows))
        prepared = server.prepare(model, listener, config)
        print(
            f"{first_few(model.domains)} at {server.address(listener)} "
            "(Ctrl-C stops the server)",
            flush=True,
        )
        server.serve(prepared, listener)
    print("stopped")


def run() -> None:
    """Entry point of `u2net-serve`."""
    command.start(main, ServeConfig)


if __name__ == "__main__":
    run()
