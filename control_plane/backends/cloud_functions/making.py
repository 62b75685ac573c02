"""How a container gets its function: one that is ready, or a new one; and how the function goes again."""

from __future__ import annotations

import secrets
import time
from collections.abc import Mapping, Sequence

from control_plane.backends.agent_image import ImageContents, image_reference
from control_plane.backends.callback import callback_urls
from control_plane.backends.calls import docker_errors
from control_plane.backends.cloud_functions import plan as plans
from control_plane.backends.cloud_functions.capabilities import check_image
from control_plane.backends.cloud_functions.deployment import Deployment
from control_plane.backends.cloud_functions.functions import Functions
from control_plane.backends.cloud_functions.identity import Identity
from control_plane.backends.cloud_functions.plan import Shape
from control_plane.backends.cloud_functions.pool import Pool
from control_plane.backends.cloud_functions.records import FunctionRecords
from control_plane.backends.cloud_functions.settings import CloudFunctionsSettings
from control_plane.model import CloudFunction, Container, Image
from control_plane.timestamps import now


class FunctionsOfContainers:
    """The functions, their records and the pool, as one container sees them."""

    def __init__(
        self,
        settings: CloudFunctionsSettings,
        images: ImageContents,
        records: FunctionRecords,
        functions: Functions,
        deployment: Deployment,
        identity: Identity,
        key: bytes,
    ) -> None:
        self._settings = settings
        self._images = images
        self._records = records
        self._functions = functions
        self._deployment = deployment
        self._identity = identity
        self._key = key
        self._pool = Pool(records, settings.pool, self._spare)

    async def make(
        self, container: Container, image: Image, agent_token: str, gateways: Sequence[str]
    ) -> CloudFunction:
        """The container's function, ready to be invoked. Repeatable. Raises DockerError."""
        with docker_errors():
            found = await self._records.of(container.tenant, container.id)
            if found is None:
                found = await self._claim_or_deploy(container, image, self._own_env(container, agent_token, gateways))
            await self._identity.token(found.uri)
            return found

    async def _claim_or_deploy(self, container: Container, image: Image, env: Mapping[str, str]) -> CloudFunction:
        shape = await self._shape(container, image)
        if not plans.can_be_shared(container):
            return await self._own(shape, container, env)
        found = await self._pool.claim(shape, container.id)
        if found is None:
            found = await self._own(shape, container, env)
            self._pool.used(shape)
        return found

    async def renew(
        self, gone: CloudFunction, container: Container, image: Image, agent_token: str, gateways: Sequence[str]
    ) -> CloudFunction:
        """The container's function is not there any more: another of that name. Raises DockerError."""
        with docker_errors():
            await self._records.forget(gone)
            shape = await self._shape(container, image)
            own = gone.name == plans.function_name(container.id)
            env = self._own_env(container, agent_token, gateways) if own else {}
            return await self._deployed(shape, gone.name, container.id, env, changed_at=gone.changed_at)

    async def free(self, container: Container, *, clean: bool) -> None:
        """Back to the pool, or deleted. Repeatable. Raises DockerError.

        One that was made for the container is never another's: its environment names the container.
        """
        own = plans.function_name(container.id)
        with docker_errors():
            found = await self._records.of(container.tenant, container.id)
            if found is None:
                # Perhaps it was never recorded. One that bears the name and is somebody's is none of ours.
                if await self.named(own) is None:
                    await self._functions.delete(own)
                return
            if clean and found.name != own and await self._pool.release(found):
                return
            await self.delete(found)

    async def delete(self, function: CloudFunction) -> None:
        """The function and its record; a missing one is no error. Raises CloudError."""
        await self._functions.delete(function.name)
        await self._records.forget(function)

    async def named(self, name: str) -> CloudFunction | None:
        """The record of a function. Reads all records: for what is rare."""
        return next((record for record in await self._records.all() if record.name == name), None)

    async def close(self) -> None:
        """Gives up spares that are being made."""
        await self._pool.close()

    async def _shape(self, container: Container, image: Image) -> Shape:
        check_image(image, self._settings)
        # Asked every time: the digest on record may be of an older agent.
        derived = await self._images.ensure_agent_layer(image)
        return plans.shape_of(container, image_reference(image, derived.agent_digest), self._settings)

    async def _own(self, shape: Shape, container: Container, env: Mapping[str, str]) -> CloudFunction:
        return await self._deployed(shape, plans.function_name(container.id), container.id, env)

    async def _spare(self, shape: Shape) -> CloudFunction:
        return await self._deployed(shape, plans.function_name(secrets.token_hex(6)), "", {})

    async def _deployed(
        self, shape: Shape, name: str, container: str, env: Mapping[str, str], *, changed_at: float | None = None
    ) -> CloudFunction:
        plan = plans.plan_of(shape, name, self._key, self._settings, container, env)
        uri = await self._deployment.deploy(plan)
        made = CloudFunction(
            name=name,
            tenant=shape.tenant,
            shape=shape.digest,
            uri=uri,
            container=container,
            created_at=now(),
            changed_at=time.time() if changed_at is None else changed_at,
        )
        await self._records.put(made)
        return made

    def _own_env(self, container: Container, agent_token: str, gateways: Sequence[str]) -> dict[str, str]:
        return {
            plans.CALLBACK_URL: callback_urls(self._settings.callback_url, container, gateways),
            plans.CONTAINER_ID: container.id,
            plans.AGENT_TOKEN: agent_token,
        }
