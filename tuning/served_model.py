"""The code that MLflow stores with a champion: a batch of face crops in, degrees out.

It needs ``headpose`` alone, which is stored beside it; loading it asks for neither Ray nor Optuna.
"""

from typing import Any

import mlflow
import numpy as np
from mlflow.pyfunc import PythonModel
from PIL import Image

from headpose.networks.snapshots import load_weights
from headpose.predict import predict_images


class HeadposeModel(PythonModel):  # type: ignore[misc]
    """Yaw, pitch and roll of heads."""

    def load_context(self, context: Any) -> None:
        """Reads the weights; MLflow asks that the parameter be called ``context``."""
        self._network = load_weights(context.artifacts["weights"])

    def predict(
        self,
        context: Any,  # noqa: ARG002
        model_input: np.ndarray,
        params: dict[str, Any] | None = None,  # noqa: ARG002
    ) -> np.ndarray:
        """Degrees (N, 3) yaw, pitch, roll of images (N, H, W, 3) uint8, each a face's crop."""
        images = [Image.fromarray(image) for image in model_input]
        return np.asarray(predict_images(self._network, images), dtype=np.float32)


mlflow.models.set_model(HeadposeModel())
