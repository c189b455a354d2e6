# The service with both ways of reading HDFS: libhdfs (Java) and hdfs-native.
#
#   docker build --tag cutout-api .
#   docker run --publish 24000:24000 --volume /etc/cutout-api:/etc/cutout-api:ro cutout-api
#
# Both stages are Debian 12 with its own Python 3.11: install/check-dockerfile.sh runs every step
# of this file in a clean Debian root, without Docker. install/README.md has more.

FROM debian:bookworm-slim AS build

ENV DEBIAN_FRONTEND=noninteractive PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
# Java registers its manual pages, and fails where the slim image has no folder for them.
RUN mkdir -p /usr/share/man/man1 \
    && apt-get update \
    && apt-get install -y --no-install-recommends default-jdk-headless gcc libc6-dev python3-venv

WORKDIR /opt/cutout-api
RUN python3 -m venv venv

# Each step stands before the files that change more often than it does.
COPY install/hdfs-client.sh /build/install/
RUN PYTHON=venv/bin/python /build/install/hdfs-client.sh /opt/cutout-api/hdfs

COPY requirements.lock /build/
RUN venv/bin/pip install --require-hashes --only-binary :all: --requirement /build/requirements.lock

COPY pyproject.toml requirements.txt /build/
COPY cutout_api /build/cutout_api
# By the setuptools of the lock: in isolation pip would fetch one that nobody has checked.
RUN venv/bin/pip install --no-deps --no-build-isolation /build \
    && venv/bin/pip uninstall --yes setuptools pip

COPY install/docker-entrypoint.sh install/healthcheck.py ./


FROM debian:bookworm-slim

# The same Java as above, which is where hdfs/env.sh says it is.
RUN mkdir -p /usr/share/man/man1 \
    && apt-get update \
    && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends default-jre-headless libgssapi-krb5-2 python3 \
    && rm -rf /var/lib/apt/lists/* /var/cache/apt/* /var/log/apt /var/log/dpkg.log

# A name for the number: it is who reads HDFS where archive.user is left out.
RUN useradd --system --uid 10001 --home-dir /var/lib/cutout-api --create-home --shell /usr/sbin/nologin cutout-api

COPY --from=build /opt/cutout-api /opt/cutout-api
COPY config.yml /etc/cutout-api/config.yml

# HOME whoever runs it: astropy fails to start where it may not look into its home.
ENV HOME=/var/lib/cutout-api \
    PATH=/opt/cutout-api/venv/bin:/usr/local/bin:/usr/bin:/bin \
    CUTOUT_API_CONFIG=/etc/cutout-api/config.yml \
    CUTOUT_API_SERVER_HOST=0.0.0.0 \
    CUTOUT_API_CATALOG_URL=sqlite:////var/lib/cutout-api/catalog.sqlite \
    MPLCONFIGDIR=/tmp/matplotlib
# By number, so that Kubernetes can tell that it is not root.
USER 10001
WORKDIR /var/lib/cutout-api
EXPOSE 24000
HEALTHCHECK --interval=30s --timeout=5s --start-period=20s --retries=3 \
    CMD ["python", "/opt/cutout-api/healthcheck.py"]
ENTRYPOINT ["/opt/cutout-api/docker-entrypoint.sh"]
CMD ["cutout_api", "serve"]
