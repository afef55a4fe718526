"""The published files of the image sets: names, addresses and checksums."""

from cellflow.datasets.public_file import PublicFile

SPLITS = {"train": "train", "test": "t10k"}
"""Parts of the data, and how MNIST's files call them."""


def _idx_files(
    name: str, address: str, checksums: dict[str, tuple[str, str]]
) -> dict[str, tuple[PublicFile, PublicFile]]:
    return {
        split: (
            PublicFile(
                f"{name}/{SPLITS[split]}-images-idx3-ubyte.gz",
                images,
                f"{address}/{SPLITS[split]}-images-idx3-ubyte.gz",
            ),
            PublicFile(
                f"{name}/{SPLITS[split]}-labels-idx1-ubyte.gz",
                labels,
                f"{address}/{SPLITS[split]}-labels-idx1-ubyte.gz",
            ),
        )
        for split, (images, labels) in checksums.items()
    }


MNIST = _idx_files(
    "mnist",
    "https://ossci-datasets.s3.amazonaws.com/mnist",
    {
        "train": (
            "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
            "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
        ),
        "test": (
            "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
            "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
        ),
    },
)
MNIST_COPY = {
    "train": PublicFile("mnist_train.npz", "d11eaebab95fa196d35e2aa961837e53395f614ceadc1857cc571acb413774f0"),
    "test": PublicFile("mnist_test.npz", "8aa639b0bb27b08961d59eea1dc120d8927fa4c2824e3b2350ddffb6dfb25e83"),
}
FASHION_MNIST = _idx_files(
    "fashion_mnist",
    "https://github.com/zalandoresearch/fashion-mnist/raw/master/data/fashion",
    {
        "train": (
            "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
            "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
        ),
        "test": (
            "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
            "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
        ),
    },
)
CIFAR10 = PublicFile(
    "cifar-10-binary.tar.gz",
    "c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd",
    "https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz",
)
CIFAR10_JPEG = {
    "train": PublicFile(
        "cifar10_jpeg/cifar10_train_jpeg.npz", "d5a380ce983c8b804ff7f15af42b0e5a1e9989b372a67b7fedfdbe00dcb14bdb"
    ),
    "test": PublicFile(
        "cifar10_jpeg/cifar10_test_jpeg.npz", "19be92382aad6468af16d34cbe43435539761354de05d266f0dce002a225a38e"
    ),
}
NUCLEI = PublicFile("nuclei_32_scaled.npz", "c7c6362b219e741ab7bf38ec89b40c2852d08c443cb59eaba299b13ed5424860")
INCEPTION = PublicFile(
    "inception-2015-12-05.pt",
    "f58cb9b6ec323ed63459aa4fb441fe750cfe39fafad6da5cb504a16f19e958f4",
    "https://nvlabs-fi-cdn.nvidia.com/stylegan2-ada-pytorch/pretrained/metrics/inception-2015-12-05.pt",
)
